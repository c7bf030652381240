// Norm and gate of rows by the kernels of norm_rows.cu.
#include "ATen/ATen.h"
#include "halo/kernels/cuda/cuda_kernels.h"
#include "halo/kernels/cuda/partial_sums.h"
#include "halo/kernels/rms_norm/rms_norm_forms.h"
#include "halo/kernels/rms_norm/rms_norm_launch.h"

namespace halo {
namespace {

const void* data_of(const at::Tensor& x) {
  return x.defined() ? x.const_data_ptr() : nullptr;
}

}  // namespace

bool has_norm_cuda_kernels(CudaKernels kernels, const at::Tensor& x, const at::Tensor& w) {
  const int64_t columns = x.size(1);
  const bool wide = columns % 8 == 0 && reinterpret_cast<uintptr_t>(data_of(w)) % 16 == 0;
  return has_cuda_kernels(kernels, x) && columns <= (wide ? kMostNormColumns : kMostOddNormColumns);
}

at::Tensor norm_forward_cuda(const at::Tensor& x, const at::Tensor& w, double eps,
                             const at::Tensor& gate) {
  const DeviceStream stream(x);
  at::Tensor y = at::empty_like(x);
  launch_norm_rows({.element = element_of(x),
                    .rows = x.size(0),
                    .columns = x.size(1),
                    .eps = static_cast<float>(eps),
                    .x = data_of(x),
                    .w = data_of(w),
                    .gate = data_of(gate),
                    .y = y.mutable_data_ptr()},
                   stream.handle());
  return y;
}

std::pair<at::Tensor, at::Tensor> add_norm_forward_cuda(const at::Tensor& residual,
                                                        const at::Tensor& delta,
                                                        const at::Tensor& w, double eps) {
  const DeviceStream stream(residual);
  at::Tensor sum = at::empty_like(residual);
  at::Tensor normed = at::empty_like(residual);
  launch_norm_rows({.element = element_of(residual),
                    .rows = residual.size(0),
                    .columns = residual.size(1),
                    .eps = static_cast<float>(eps),
                    .x = data_of(residual),
                    .delta = data_of(delta),
                    .w = data_of(w),
                    .sum = sum.mutable_data_ptr(),
                    .y = normed.mutable_data_ptr()},
                   stream.handle());
  return {sum, normed};
}

GatedNormGradients norm_backward_cuda(const at::Tensor& dy, const at::Tensor& x,
                                      const at::Tensor& w, double eps, const at::Tensor& gate,
                                      const at::Tensor& w_grad, const at::Tensor& direct) {
  const DeviceStream stream(x);
  const int64_t rows = x.size(0), columns = x.size(1), blocks = partial_blocks(rows);
  GatedNormGradients out{at::empty_like(x), gate.defined() ? at::empty_like(gate) : at::Tensor()};
  at::Tensor partial;
  if (w_grad.defined()) partial = at::empty({blocks, columns}, x.options().dtype(at::kFloat));
  float* partial_dw = partial.defined() ? partial.mutable_data_ptr<float>() : nullptr;
  launch_norm_rows_backward({.element = element_of(x),
                             .rows = rows,
                             .columns = columns,
                             .eps = static_cast<float>(eps),
                             .x = data_of(x),
                             .w = data_of(w),
                             .gate = data_of(gate),
                             .dy = data_of(dy),
                             .direct = data_of(direct),
                             .dx = out.x.mutable_data_ptr(),
                             .d_gate = out.gate.defined() ? out.gate.mutable_data_ptr() : nullptr,
                             .partial_dw = partial_dw},
                            stream.handle());
  if (partial_dw) {
    launch_add_partial_sums(partial_dw, blocks, columns, w_grad.mutable_data_ptr<float>(),
                            stream.handle());
  }
  return out;
}

}  // namespace halo
