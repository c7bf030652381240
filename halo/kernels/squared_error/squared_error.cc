// Checks, choice of form, and the form in LibTorch operations.
#include "halo/kernels/squared_error/squared_error.h"

#include "ATen/ATen.h"
#include "halo/base/check.h"
#include "halo/kernels/cuda/cuda_kernels.h"
#include "halo/kernels/cuda/partial_sums.h"
#include "halo/kernels/squared_error/squared_error_launch.h"

namespace halo {
namespace {

SquaredError run_aten(const at::Tensor& y, const at::Tensor& target, const at::Tensor& scale) {
  const at::Tensor difference = y - target;
  SquaredError out{difference.to(at::kFloat).square().sum(), at::empty_like(difference)};
  at::mul_out(out.gradient, difference, scale);
  return out;
}

SquaredError run_cuda(const at::Tensor& y, const at::Tensor& target, const at::Tensor& scale) {
  const DeviceStream stream(y);
  SquaredError out{at::zeros({}, scale.options()), at::empty_like(y)};
  const int64_t blocks = squared_error_blocks(y.numel());
  const at::Tensor partial = at::empty({blocks}, scale.options());
  launch_squared_error({.element = element_of(y),
                        .count = y.numel(),
                        .y = y.const_data_ptr(),
                        .target = target.const_data_ptr(),
                        .scale = scale.const_data_ptr<float>(),
                        .gradient = out.gradient.mutable_data_ptr(),
                        .partial = partial.mutable_data_ptr<float>()},
                       stream.handle());
  launch_add_partial_sums(partial.const_data_ptr<float>(), blocks, 1,
                          out.sum.mutable_data_ptr<float>(), stream.handle());
  return out;
}

}  // namespace

SquaredError squared_error(const at::Tensor& y, const at::Tensor& target, const at::Tensor& scale) {
  HALO_CHECK(y.sizes() == target.sizes() && y.scalar_type() == target.scalar_type(),
             "squared_error: y and target differ in shape or type");
  HALO_CHECK(y.device() == target.device() && y.device() == scale.device(),
             "squared_error: y, target and scale are on different devices");
  // Of one dimension: a tensor of none would be rounded to y's type before it multiplies.
  HALO_CHECK(scale.dim() == 1 && scale.numel() == 1 && scale.scalar_type() == at::kFloat,
             "squared_error: scale must be [1] fp32");
  const at::NoGradGuard no_grad;
  const auto form = has_cuda_kernels(CudaKernels::kSquaredError, y) ? run_cuda : run_aten;
  return form(y.contiguous(), target.contiguous(), scale);
}

}  // namespace halo
