// The fused CPU form of SwiGLU's elementwise part: fp32, contiguous.
#pragma once

#include <ATen/core/Tensor.h>

namespace halo {

at::Tensor swiglu_forward_cpu(const at::Tensor& gate_up);
// The gradient of gate_up.
at::Tensor swiglu_backward_cpu(const at::Tensor& dy, const at::Tensor& gate_up);

}  // namespace halo
