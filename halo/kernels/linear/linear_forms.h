// The fixed-order CPU form of linear.
#pragma once

#include <ATen/core/Tensor.h>

namespace halo {

// All fp32 and contiguous; bias may be undefined.
at::Tensor linear_reference(const at::Tensor& x, const at::Tensor& w, const at::Tensor& bias);

}  // namespace halo
