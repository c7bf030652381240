// Next-token cross-entropy from hidden states, a chunk of rows at a time: the logits of all tokens
// are never held at once.
#pragma once

#include "halo/kernels/common/sequences.h"
#include "halo/kernels/common/weight.h"

namespace halo {

inline constexpr int64_t kIgnoreTarget = -1;

// hidden [N, D], head.value [V, D], targets [N] int64 in [0, V) or kIgnoreTarget, weights [N] fp32
// (undefined: all 1). Returns sum over counted tokens of weight * -ln p(target), fp32 scalar.
// Backward: gradients of hidden, and head.grad += in fp32 (computed in the forward pass, scaled in
// backward by the incoming gradient).
at::Tensor linear_cross_entropy(const at::Tensor& hidden, const Weight& head,
                                const at::Tensor& targets, const at::Tensor& weights);

// -ln p(target) of every token, [N] fp32; 0 where ignored. No gradients.
at::Tensor token_losses(const at::Tensor& hidden, const at::Tensor& head, const at::Tensor& targets,
                        Kernels kernels);

}  // namespace halo
