// The forms of adamw_step. Internal; adamw.h has the formula and the arguments.
#pragma once

#include "halo/kernels/adamw/adamw.h"
#include "halo/kernels/adamw/adamw_launch.h"

namespace halo {

AdamWFactors adamw_factors(const AdamWStep& args);

// These leave the cast to the compute copy to the caller.
void adamw_step_cpu(at::Tensor& master, const at::Tensor& grad, at::Tensor& m, at::Tensor& v,
                    const at::Tensor& decay_mask, const AdamWStep& args);
void adamw_step_aten(at::Tensor& master, const at::Tensor& grad, at::Tensor& m, at::Tensor& v,
                     const at::Tensor& decay_mask, const AdamWStep& args);

// Writes the compute copy (undefined: none) in the same pass.
void adamw_step_cuda(at::Tensor& master, const at::Tensor& grad, at::Tensor& m, at::Tensor& v,
                     const at::Tensor& compute, const at::Tensor& decay_mask,
                     const AdamWStep& args);

// x in fixed blocks: the sum of squares of each in fp64, then their sum.
at::Tensor squared_norm_cpu(const at::Tensor& x);
at::Tensor squared_norm_aten(const at::Tensor& x);
at::Tensor squared_norm_cuda(const at::Tensor& x);

}  // namespace halo
