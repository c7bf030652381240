// The kernel of fused_linear.cu; fused_linear.h has the formula.
#pragma once

#include "halo/kernels/cuda/launch.h"

namespace halo {

// The most rows of x that the kernel takes, and what the sizes must be multiples of.
inline constexpr int64_t kMostFusedRows = 4;
inline constexpr int64_t kFusedInputs = 64, kFusedOutputs = 16;
// x stands in shared memory, which has this much for it.
inline constexpr int64_t kMostFusedBytes = 96 << 10;

struct FusedLinearLaunch {
  int64_t rows = 0, inputs = 0, outputs = 0;  // outputs: of y
  float eps = 0;
  const void* x = nullptr;     // [rows, inputs] bf16, as everything but a wide y
  const void* norm = nullptr;  // [inputs]; null: no norm
  const void* gate = nullptr;  // [rows, inputs], its rows gate_stride apart; null: none
  int64_t gate_stride = 0;
  const void* w = nullptr;         // [outputs, inputs], with swiglu [2 outputs, inputs]
  const float* scale = nullptr;    // of each row of w, which is int8 then; null: w is bf16
  const void* bias = nullptr;      // [outputs]; null: none
  const void* residual = nullptr;  // [rows, outputs]; null: none
  bool swiglu = false;
  bool wide = false;  // y is fp32
  void* y = nullptr;  // [rows, outputs]
};

// All rows begin at multiples of 16 bytes.
void launch_fused_linear(const FusedLinearLaunch& args, void* stream);

}  // namespace halo
