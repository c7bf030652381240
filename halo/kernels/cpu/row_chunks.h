// How the CPU forms share rows and tasks among threads.
#pragma once

#include <ATen/Parallel.h>
#include <ATen/core/Tensor.h>

#include <algorithm>
#include <functional>

namespace halo {

// Rows of `columns` elements that are worth a thread's while.
inline int64_t row_grain(int64_t columns) {
  return std::max<int64_t>(1, 16384 / std::max<int64_t>(columns, 1));
}

// The grain of a loop over `tasks` that read `bytes` in all and multiply each number that they read
// `uses` times: one task, or all of them where what others would save is less than twice what it
// takes to wake them, since one that wakes late makes all wait. A decoding step has hundreds of
// such loops (docs/results/cpu.md).
inline int64_t task_grain(int64_t tasks, int64_t bytes, int64_t uses = 1) {
  constexpr double kWaking = 40e-6;  // seconds
  constexpr double kRate = 30e9;     // bytes a second that a thread reads
  constexpr int64_t kFree = 2;       // multiplications that reading leaves time for
  const int64_t work = bytes * std::max<int64_t>(1, uses / kFree);
  const double saved = static_cast<double>(work) / kRate * (1 - 1.0 / at::get_num_threads());
  return saved < 2 * kWaking ? std::max<int64_t>(1, tasks) : 1;
}

// Sums over rows whose bits do not depend on the number of threads: rows [begin, end) of a fixed
// chunk are added to `sums`, the chunk's own zeroed buffer of `width` elements, and the chunks are
// added up in order. Returns the total [width] fp32.
at::Tensor sum_over_rows(
    int64_t rows, int64_t width,
    const std::function<void(int64_t begin, int64_t end, float* sums)>& add_rows);

}  // namespace halo
