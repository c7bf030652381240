// The loss of stage 1 (hypenet.md 2.2) over one mixer's outputs, with its gradient.
#pragma once

#include <ATen/core/Tensor.h>

namespace halo {

struct SquaredError {
  at::Tensor sum;       // [] fp32: of (y - target)^2 over all elements
  at::Tensor gradient;  // scale (y - target), y's shape and type
};

// y, target of one shape and type, fp32 or bf16; scale [1] fp32, on their device. Records nothing
// for autograd.
SquaredError squared_error(const at::Tensor& y, const at::Tensor& target, const at::Tensor& scale);

}  // namespace halo
