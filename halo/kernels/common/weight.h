// A weight as an operation sees it. Weight gradients do not travel through autograd: an operation's
// backward adds them to `grad` and returns an undefined gradient for `value`.
#pragma once

#include <ATen/core/Tensor.h>

namespace halo {

struct Weight {
  at::Tensor value;  // in the compute type; where there is a scale, int8 or fp8
  at::Tensor grad;   // fp32, value's shape; undefined: frozen
  // fp32 [O] of a frozen matrix [O, I] that products alone read: row o stands for scale[o]
  // value[o].
  at::Tensor scale = {};

  bool defined() const { return value.defined(); }
  // A trained weight's value has requires_grad set, so that nodes are recorded for it even where no
  // activation needs a gradient (the first layer, stage 1).
  bool trained() const { return grad.defined(); }
};

}  // namespace halo
