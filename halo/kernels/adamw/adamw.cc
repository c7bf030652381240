// Checks and choice of form.
#include "halo/kernels/adamw/adamw.h"

#include <cmath>

#include "ATen/ATen.h"
#include "halo/base/check.h"
#include "halo/kernels/adamw/adamw_forms.h"
#include "halo/kernels/cuda/cuda_kernels.h"

namespace halo {
namespace {

void check_arena(const char* name, const at::Tensor& x, const at::Tensor& master) {
  HALO_CHECK(x.dim() == 1 && x.numel() == master.numel() && x.scalar_type() == at::kFloat &&
                 x.is_contiguous() && x.device() == master.device(),
             "adamw_step: {} must be 1-D contiguous fp32 with {} elements on the master's device",
             name, master.numel());
}

void check_scalar(const char* name, const at::Tensor& x, const at::Tensor& master) {
  HALO_CHECK(x.defined() && x.numel() == 1 && x.scalar_type() == at::kFloat &&
                 x.device() == master.device(),
             "adamw_step: {} must be one fp32 value on the master's device", name);
}

}  // namespace

AdamWFactors adamw_factors(const AdamWStep& args) {
  const double bias1 = 1 - std::pow(args.beta1, static_cast<double>(args.step));
  const double bias2 = 1 - std::pow(args.beta2, static_cast<double>(args.step));
  return {.keep1 = static_cast<float>(args.beta1),
          .take1 = static_cast<float>(1 - args.beta1),
          .keep2 = static_cast<float>(args.beta2),
          .take2 = static_cast<float>(1 - args.beta2),
          .step = static_cast<float>(args.learning_rate / bias1),
          .inverse_bias2 = static_cast<float>(1 / std::sqrt(bias2)),
          .eps = static_cast<float>(args.eps),
          .decay = static_cast<float>(args.learning_rate * args.weight_decay)};
}

void adamw_step(at::Tensor& master, const at::Tensor& grad, at::Tensor& m, at::Tensor& v,
                at::Tensor& compute, const at::Tensor& decay_mask, const AdamWStep& args) {
  check_arena("master", master, master);
  check_arena("grad", grad, master);
  check_arena("m", m, master);
  check_arena("v", v, master);
  if (decay_mask.defined()) check_arena("decay_mask", decay_mask, master);
  check_scalar("grad_scale", args.grad_scale, master);
  check_scalar("apply", args.apply, master);
  HALO_CHECK(args.step >= 1, "adamw_step: steps count from 1, got {}", args.step);
  at::NoGradGuard no_grad;
  const bool copies = compute.defined() && !compute.is_alias_of(master);
  if (has_cuda_kernels(CudaKernels::kAdamW, master)) {
    return adamw_step_cuda(master, grad, m, v, copies ? compute : at::Tensor(), decay_mask, args);
  }
  const auto form = master.is_cpu() ? adamw_step_cpu : adamw_step_aten;
  form(master, grad, m, v, decay_mask, args);
  // After a skipped step this writes what is there already.
  if (copies) compute.copy_(master);
}

at::Tensor squared_norm(const at::Tensor& x) {
  HALO_CHECK(x.dim() == 1 && x.scalar_type() == at::kFloat && x.is_contiguous(),
             "squared_norm: the tensor must be 1-D contiguous fp32");
  at::NoGradGuard no_grad;
  if (has_cuda_kernels(CudaKernels::kAdamW, x)) return squared_norm_cuda(x);
  return x.is_cpu() ? squared_norm_cpu(x) : squared_norm_aten(x);
}

}  // namespace halo
