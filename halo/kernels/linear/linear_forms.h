// The fixed-order CPU form of linear.
#pragma once

#include "halo/kernels/common/weight.h"

namespace halo {

// Contiguous and fp32, but w fp32, bf16 or int8 with its scales; bias may be undefined.
at::Tensor linear_reference(const at::Tensor& x, const Weight& w, const at::Tensor& bias);

}  // namespace halo
