// The forms behind causal_attention and paged_attention.
#pragma once

#include "halo/kernels/attention/attention.h"

namespace halo {

// One sequence, in fixed-order fp32 loops on the CPU: the n queries q [n, H, d] are the last of the
// L tokens whose k, v [L, G, d] are given. Returns [n, H, d] fp32.
at::Tensor reference_attention(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                               double scale);

// What the backward pass needs from the forward pass.
struct AttentionForward {
  at::Tensor o;  // [N, H, d] in q's type
  // Log-sum-exp of the scaled logits. CPU: [N, H] fp32. CUDA: in the layout of Flash or of the
  // memory-efficient kernel, then a random seed and offset (unused: no dropout), then of cuDNN's
  // forward pass the first in its own layout.
  std::vector<at::Tensor> statistics;
};

AttentionForward causal_attention_forward(const at::Tensor& q, const at::Tensor& k,
                                          const at::Tensor& v, double scale,
                                          const Sequences& sequences);

struct AttentionGradients {
  at::Tensor q, k, v;  // in the inputs' types
};

AttentionGradients causal_attention_backward(const at::Tensor& d_o, const at::Tensor& q,
                                             const at::Tensor& k, const at::Tensor& v,
                                             const AttentionForward& forward, double scale,
                                             const Sequences& sequences);

// The same on the CPU, all fp32 and contiguous; gradients of k and v are those of every query head,
// [N, H, d]. A sequence's results do not depend on the others.
AttentionForward fused_attention(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                                 double scale, const Sequences& sequences);
AttentionGradients fused_attention_backward(const at::Tensor& d_o, const at::Tensor& q,
                                            const at::Tensor& k, const at::Tensor& v,
                                            const AttentionForward& forward, double scale,
                                            const Sequences& sequences);

}  // namespace halo
