// What a launcher in a .cu file takes beside plain pointers and sizes. No Torch, no CUDA headers:
// .cc and .cu files include it alike. A launcher puts its kernels on `stream` (a cudaStream_t; the
// current device is the stream's) and returns; it throws Error where a launch is refused.
#pragma once

#include <cstdint>

namespace halo {

// Element type of an activation or a weight.
enum class Element : int32_t { kFloat, kBFloat16 };

// Throws Error with the driver's words if the last launch on this thread was refused.
void check_launch(const char* kernel);

// What a stub throws: this program was built without nvcc.
[[noreturn]] void no_cuda_kernels(const char* launcher);

}  // namespace halo
