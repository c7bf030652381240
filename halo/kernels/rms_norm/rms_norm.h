// RMSNorm: y = w * cast(x / sqrt(mean(x^2) + eps)). Statistics in fp32, cast to x's type, then
// times the weight (this order matters in bf16).
#pragma once

#include <utility>

#include "halo/kernels/common/sequences.h"
#include "halo/kernels/common/weight.h"

namespace halo {

// x [N, D], w [D] -> [N, D].
at::Tensor rms_norm(const at::Tensor& x, const Weight& w, double eps);

// The residual stream's step: sum = residual + delta, normed = rms_norm(sum, w, eps), in one pass.
// Both [N, D]. Returns {sum, normed}. The gradient reaching residual and delta is the same tensor.
std::pair<at::Tensor, at::Tensor> add_rms_norm(const at::Tensor& residual, const at::Tensor& delta,
                                               const Weight& w, double eps);

}  // namespace halo
