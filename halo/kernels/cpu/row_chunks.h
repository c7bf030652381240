// How the CPU forms share rows and tasks among threads.
#pragma once

#include <ATen/core/Tensor.h>

#include <algorithm>
#include <functional>

namespace halo {

// Rows of `columns` elements that are worth a thread's while.
inline int64_t row_grain(int64_t columns) {
  return std::max<int64_t>(1, 16384 / std::max<int64_t>(columns, 1));
}

// The grain of a loop over `tasks` that read `bytes` in all: one task, or all of them where a
// thread by itself is done about when others would have woken up, which takes some 40 us. A
// decoding step has hundreds of such loops (docs/results/cpu.md).
inline int64_t task_grain(int64_t tasks, int64_t bytes) {
  constexpr int64_t kWorthWaking = int64_t{1} << 22;
  return bytes < kWorthWaking ? std::max<int64_t>(1, tasks) : 1;
}

// Sums over rows whose bits do not depend on the number of threads: rows [begin, end) of a fixed
// chunk are added to `sums`, the chunk's own zeroed buffer of `width` elements, and the chunks are
// added up in order. Returns the total [width] fp32.
at::Tensor sum_over_rows(
    int64_t rows, int64_t width,
    const std::function<void(int64_t begin, int64_t end, float* sums)>& add_rows);

}  // namespace halo
