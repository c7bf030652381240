// The kernels of norm_rows.cu: every row that is normed, gated or both, in one read of each input.
//   n = w cast(x rstd) where w, else x;   y = n sigma(gate) where gate, else n
#pragma once

#include "halo/kernels/cuda/launch.h"

namespace halo {

// Widest row that a block holds: 8 elements a thread where the columns are a multiple of 8.
inline constexpr int64_t kMostNormColumns = 8192, kMostOddNormColumns = 1024;

struct NormRowsLaunch {
  Element element = Element::kFloat;
  int64_t rows = 0, columns = 0;
  float eps = 0;
  const void* x = nullptr;      // [rows, columns], as all rows below
  const void* delta = nullptr;  // added to x first, and the sum, rounded, is what is normed
  const void* w = nullptr;      // [columns]
  const void* gate = nullptr;
  void* sum = nullptr;  // x + delta, given delta
  void* y = nullptr;
};
void launch_norm_rows(const NormRowsLaunch& args, void* stream);

struct NormRowsBackwardLaunch {
  Element element = Element::kFloat;
  int64_t rows = 0, columns = 0;
  float eps = 0;
  const void* x = nullptr;
  const void* w = nullptr;
  const void* gate = nullptr;
  const void* dy = nullptr;
  const void* direct = nullptr;  // added to dx
  void* dx = nullptr;
  void* d_gate = nullptr;       // given gate
  float* partial_dw = nullptr;  // [partial_blocks(rows), columns]; null: not wanted
};
void launch_norm_rows_backward(const NormRowsBackwardLaunch& args, void* stream);

}  // namespace halo
