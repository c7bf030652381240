// The fixed-order CPU form of linear.
#pragma once

#include <ATen/core/Tensor.h>

namespace halo {

// Contiguous and fp32, but w fp32 or bf16; bias may be undefined.
at::Tensor linear_reference(const at::Tensor& x, const at::Tensor& w, const at::Tensor& bias);

}  // namespace halo
