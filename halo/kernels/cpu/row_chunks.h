// How the CPU forms share rows among threads.
#pragma once

#include <ATen/core/Tensor.h>

#include <algorithm>
#include <functional>

namespace halo {

// Rows of `columns` elements that are worth a thread's while.
inline int64_t row_grain(int64_t columns) {
  return std::max<int64_t>(1, 16384 / std::max<int64_t>(columns, 1));
}

// Sums over rows whose bits do not depend on the number of threads: rows [begin, end) of a fixed
// chunk are added to `sums`, the chunk's own zeroed buffer of `width` elements, and the chunks are
// added up in order. Returns the total [width] fp32.
at::Tensor sum_over_rows(
    int64_t rows, int64_t width,
    const std::function<void(int64_t begin, int64_t end, float* sums)>& add_rows);

}  // namespace halo
