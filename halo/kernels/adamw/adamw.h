// AdamW over flat fp32 arenas (Loshchilov and Hutter 2019; decoupled decay).
#pragma once

#include <ATen/core/Tensor.h>

namespace halo {

struct AdamWStep {
  double learning_rate = 0;
  double beta1 = 0.9, beta2 = 0.95, eps = 1e-8;
  double weight_decay = 0;
  int64_t step = 1;       // 1-based, for the bias correction
  at::Tensor grad_scale;  // fp32 scalar on the device: every gradient is multiplied by it
  at::Tensor apply;       // fp32 scalar on the device: 0 skips the whole update (a non-finite step)
};

// All tensors 1-D, fp32, one length, except compute: bf16 or fp32, or undefined where the master is
// the compute copy. decay_mask fp32 (0 or 1; undefined: all 0). One pass:
//   g = grad * grad_scale;  m = b1 m + (1-b1) g;  v = b2 v + (1-b2) g^2
//   master -= lr * (m/(1-b1^t) / (sqrt(v/(1-b2^t)) + eps) + weight_decay * decay_mask * master)
// and compute = cast(master). grad is left as it is.
void adamw_step(at::Tensor& master, const at::Tensor& grad, at::Tensor& m, at::Tensor& v,
                at::Tensor& compute, const at::Tensor& decay_mask, const AdamWStep& args);

// Square of the 2-norm of a 1-D fp32 tensor as an fp64 scalar tensor on its device, in an order of
// summation fixed by the length alone (bits do not depend on the thread count).
at::Tensor squared_norm(const at::Tensor& x);

}  // namespace halo
