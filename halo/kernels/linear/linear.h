// y = x W^T + b.
#pragma once

#include "halo/kernels/common/sequences.h"
#include "halo/kernels/common/weight.h"

namespace halo {

// x [N, I], w.value [O, I], bias [O] (undefined: none) -> [N, O], in x's type. All share one type,
// but on a CPU a frozen w may be bf16 where x and bias are fp32, and anywhere int8 with its scales,
// which multiply the sums: y[n, o] = scale[o] sum_i x[n, i] value[o, i] + bias[o]. Of many rows x
// in fp32 and the sums may be rounded to bf16 where w is. kReference: every output element is one
// dot product in a fixed order of summation, so a row has the same bits alone, in any batch, and on
// any number of threads.
// Where w is fp8 with its scales, each row of x is rounded to fp8 with a scale of its own too; on a
// GPU x and bias are bf16 then, I and O multiples of 16, and its compute capability 9 or more.
// Backward: dx = dy W; w.grad += dy^T x and bias.grad += sum of dy over rows, both in fp32.
// None with int8 and fp8.
at::Tensor linear(const at::Tensor& x, const Weight& w, const Weight& bias, Kernels kernels);

// linear() without a bias -> [N, O] fp32, where x in fp32 is never rounded. For logits: bf16 does
// not tell those apart that lie near each other.
at::Tensor linear_to_fp32(const at::Tensor& x, const Weight& w, Kernels kernels);

// A frozen matrix [O, I] in fp8 (e4m3: 3 bits of fraction, 448 at most), each row scaled so that
// its largest value is 448.
Weight to_fp8(const at::Tensor& matrix);

// The matrix [O, I] that w stands for: itself, or value times the scales, rounded to `type`.
at::Tensor dense_matrix(const Weight& w, at::ScalarType type);

}  // namespace halo
