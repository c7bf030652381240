// Parallel loops for the parts without Torch (the others use at::parallel_for).
#pragma once

#include <cstdint>
#include <functional>

namespace halo {

// body(i) for i = 0 .. n-1 on at most `threads` threads, in no order. The first exception stops the
// loop (indices already started are finished) and is thrown here.
void parallel_for(int64_t n, int threads, const std::function<void(int64_t)>& body);

}  // namespace halo
