// The forms of split_heads behind its node.
#pragma once

#include "halo/kernels/rope/rope.h"

namespace halo {

// What the rows are multiplied with; any but a lone cos or sin may be undefined.
struct HeadFactors {
  at::Tensor q_norm, k_norm;  // [d]
  at::Tensor cos, sin;        // [N, d/2] fp32
  at::Tensor q_scale;         // [N] fp32
};

// The LibTorch form. In backward any gradient in `grads` may be undefined (zero), and the gradients
// of the norms are added to q_norm_grad and k_norm_grad (fp32) where defined.
Heads split_heads_aten(const at::Tensor& stacked, const HeadSplit& split,
                       const HeadFactors& factors);
at::Tensor split_heads_aten_backward(const Heads& grads, const at::Tensor& stacked,
                                     const HeadSplit& split, const HeadFactors& factors,
                                     const at::Tensor& q_norm_grad, const at::Tensor& k_norm_grad);

// The same in one pass over every row: CPU, fp32, contiguous.
Heads split_heads_cpu(const at::Tensor& stacked, const HeadSplit& split,
                      const HeadFactors& factors);
at::Tensor split_heads_cpu_backward(const Heads& grads, const at::Tensor& stacked,
                                    const HeadSplit& split, const HeadFactors& factors,
                                    const at::Tensor& q_norm_grad, const at::Tensor& k_norm_grad);

// The same by kernels of our own on a GPU: fp32 or bf16, contiguous.
bool has_split_heads_cuda_kernels(const at::Tensor& stacked, const HeadSplit& split,
                                  const HeadFactors& factors);
Heads split_heads_cuda(const at::Tensor& stacked, const HeadSplit& split,
                       const HeadFactors& factors);
at::Tensor split_heads_store_cuda(const at::Tensor& stacked, const HeadSplit& split,
                                  const HeadFactors& factors, const HeadStore& store);
at::Tensor split_heads_cuda_backward(const Heads& grads, const at::Tensor& stacked,
                                     const HeadSplit& split, const HeadFactors& factors,
                                     const at::Tensor& q_norm_grad, const at::Tensor& k_norm_grad);

}  // namespace halo
