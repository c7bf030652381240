// The forms of RMSNorm behind its nodes; the operations that contain a norm share them.
//   xhat = x rstd,  y = w cast(xhat),  dx = rstd (w dy - xhat mean(w dy xhat)),  dw = sum dy xhat
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <utility>

#include "halo/kernels/cuda/cuda_kernels.h"

namespace halo {

// ---- Composed of LibTorch operations, over the last dimension, for any type and device.

// x [..., D], w [D] -> x's shape and type.
at::Tensor norm_forward(const at::Tensor& x, const at::Tensor& w, double eps);

// The gradient of x, in x's type, from dy [..., D] of any floating type. Adds the weight's gradient
// to `w_grad` (fp32) where that is defined.
at::Tensor norm_backward(const at::Tensor& dy, const at::Tensor& x, const at::Tensor& w, double eps,
                         const at::Tensor& w_grad);

// ---- One pass on the CPU: fp32, contiguous, [N, D].

at::Tensor norm_forward_cpu(const at::Tensor& x, const at::Tensor& w, double eps);
// {residual + delta, its norm}
std::pair<at::Tensor, at::Tensor> add_norm_forward_cpu(const at::Tensor& residual,
                                                       const at::Tensor& delta, const at::Tensor& w,
                                                       double eps);
// As norm_backward; `direct`, the gradient that reaches x past the norm, is added (may be
// undefined).
at::Tensor norm_backward_cpu(const at::Tensor& dy, const at::Tensor& x, const at::Tensor& w,
                             double eps, const at::Tensor& w_grad, const at::Tensor& direct);

// ---- Kernels of our own on a GPU: fp32 or bf16, contiguous, [N, D]. They take a sigmoid gate as
// well, for norm_gate.

bool has_norm_cuda_kernels(CudaKernels kernels, const at::Tensor& x, const at::Tensor& w);

// `w` (no norm) or `gate` (no gate) may be undefined.
at::Tensor norm_forward_cuda(const at::Tensor& x, const at::Tensor& w, double eps,
                             const at::Tensor& gate);
// {residual + delta, its norm}
std::pair<at::Tensor, at::Tensor> add_norm_forward_cuda(const at::Tensor& residual,
                                                        const at::Tensor& delta,
                                                        const at::Tensor& w, double eps);

struct GatedNormGradients {
  at::Tensor x, gate;
};
// As norm_backward_cpu; `w`, `gate`, `w_grad` and `direct` may be undefined.
GatedNormGradients norm_backward_cuda(const at::Tensor& dy, const at::Tensor& x,
                                      const at::Tensor& w, double eps, const at::Tensor& gate,
                                      const at::Tensor& w_grad, const at::Tensor& direct);

// The norm of one row, as the vector code takes it.
struct RowNorm {
  const float* w = nullptr;
  int64_t columns = 0;
  float eps = 0;
};

}  // namespace halo
