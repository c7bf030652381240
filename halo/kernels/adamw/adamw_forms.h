// The forms of adamw_step. Internal; adamw.h has the formula and the arguments.
#pragma once

#include "halo/kernels/adamw/adamw.h"

namespace halo {

// What a step needs besides the tensors, worked out once in fp64.
struct AdamWFactors {
  float keep1, take1;   // beta1, 1 - beta1
  float keep2, take2;   // beta2, 1 - beta2
  float step;           // lr / (1 - beta1^t)
  float inverse_bias2;  // 1 / sqrt(1 - beta2^t)
  float eps;
  float decay;  // lr * weight_decay
};

AdamWFactors adamw_factors(const AdamWStep& args);

// Both leave the cast to the compute copy to the caller.
void adamw_step_cpu(at::Tensor& master, const at::Tensor& grad, at::Tensor& m, at::Tensor& v,
                    const at::Tensor& decay_mask, const AdamWStep& args);
void adamw_step_aten(at::Tensor& master, const at::Tensor& grad, at::Tensor& m, at::Tensor& v,
                     const at::Tensor& decay_mask, const AdamWStep& args);

// x in fixed blocks: the sum of squares of each in fp64, then their sum.
at::Tensor squared_norm_cpu(const at::Tensor& x);
at::Tensor squared_norm_aten(const at::Tensor& x);

}  // namespace halo
