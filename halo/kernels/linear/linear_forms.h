// The fixed-order CPU form of linear, and what decides between its others there.
#pragma once

#include "halo/kernels/common/weight.h"

namespace halo {

// Contiguous and fp32, but w fp32, bf16 or int8 with its scales; bias may be undefined.
at::Tensor linear_reference(const at::Tensor& x, const Weight& w, const at::Tensor& bias);

// Whether this processor multiplies bf16, at four to eight times the rate of the library's fp32.
bool multiplies_bf16();

}  // namespace halo
