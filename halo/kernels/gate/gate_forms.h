// The fused CPU form of norm_gate: fp32, contiguous.
#pragma once

#include <ATen/core/Tensor.h>

#include <utility>

namespace halo {

// `norm` may be undefined.
at::Tensor norm_gate_forward_cpu(const at::Tensor& o, const at::Tensor& norm, double eps,
                                 const at::Tensor& gate);

struct NormGateGradients {
  at::Tensor o, gate;
};
// Adds the norm's gradient to `norm_grad` (fp32) where that is defined.
NormGateGradients norm_gate_backward_cpu(const at::Tensor& dy, const at::Tensor& o,
                                         const at::Tensor& norm, double eps, const at::Tensor& gate,
                                         const at::Tensor& norm_grad);

}  // namespace halo
