// Checks, choice of form, and the form in LibTorch operations, which reads nothing back from the
// device: a skipped step is a choice between old and new values made there.
#include "halo/kernels/adamw/adamw.h"

#include <algorithm>
#include <cmath>

#include "ATen/ATen.h"
#include "halo/base/check.h"
#include "halo/kernels/adamw/adamw_forms.h"
#include "halo/kernels/cuda/cuda_form.h"

namespace halo {
namespace {

// Elements of an arena handled at once, so that temporaries stay at 64 MB (128 MB in fp64) each.
constexpr int64_t kBlock = int64_t{1} << 24;

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

void adamw_step_aten(at::Tensor& master, const at::Tensor& grad, at::Tensor& m, at::Tensor& v,
                     const at::Tensor& decay_mask, const AdamWStep& args) {
  const AdamWFactors f = adamw_factors(args);
  const at::Tensor apply = args.apply.ne(0);
  for (int64_t begin = 0; begin < master.numel(); begin += kBlock) {
    const int64_t count = std::min(kBlock, master.numel() - begin);
    auto block = [&](const at::Tensor& arena) { return arena.narrow(0, begin, count); };
    at::Tensor old_master = block(master), old_m = block(m), old_v = block(v);
    const auto g = block(grad) * args.grad_scale;
    const auto new_m = at::mul(old_m, f.keep1).add_(g, f.take1);
    const auto new_v = at::mul(old_v, f.keep2).addcmul_(g, g, f.take2);
    const auto divisor = at::sqrt(new_v).mul_(f.inverse_bias2).add_(f.eps);
    auto new_master = at::addcdiv(old_master, new_m, divisor, -f.step);
    if (decay_mask.defined()) new_master.addcmul_(block(decay_mask), old_master, -f.decay);
    old_m.copy_(at::where(apply, new_m, old_m));
    old_v.copy_(at::where(apply, new_v, old_v));
    old_master.copy_(at::where(apply, new_master, old_master));
  }
}

void adamw_step_cuda(at::Tensor& master, const at::Tensor& grad, at::Tensor& m, at::Tensor& v,
                     const at::Tensor& compute, const at::Tensor& decay_mask,
                     const AdamWStep& args) {
  const DeviceStream stream(master);
  AdamWLaunch launch{.count = master.numel(),
                     .factors = adamw_factors(args),
                     .grad_scale = args.grad_scale.const_data_ptr<float>(),
                     .apply = args.apply.const_data_ptr<float>(),
                     .grad = grad.const_data_ptr<float>(),
                     .master = master.mutable_data_ptr<float>(),
                     .m = m.mutable_data_ptr<float>(),
                     .v = v.mutable_data_ptr<float>()};
  if (decay_mask.defined()) launch.decay_mask = decay_mask.const_data_ptr<float>();
  if (compute.defined()) {
    launch.compute = compute.mutable_data_ptr();
    launch.compute_element = element_of(compute);
  }
  launch_adamw(launch, stream.handle());
}

at::Tensor squared_norm_cuda(const at::Tensor& x) {
  const DeviceStream stream(x);
  const auto doubles = x.options().dtype(at::kDouble);
  const at::Tensor partial = at::empty({norm_blocks(x.numel())}, doubles);
  const at::Tensor total = at::empty({}, doubles);
  launch_squared_norm(x.const_data_ptr<float>(), x.numel(), partial.mutable_data_ptr<double>(),
                      total.mutable_data_ptr<double>(), stream.handle());
  return total;
}

at::Tensor squared_norm_aten(const at::Tensor& x) {
  auto total = at::zeros({}, x.options().dtype(at::kDouble));
  for (int64_t begin = 0; begin < x.numel(); begin += kBlock) {
    auto block = x.narrow(0, begin, std::min(kBlock, x.numel() - begin)).to(at::kDouble);
    total.add_(block.square_().sum());
  }
  return total;
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
  if (has_cuda_form(CudaKernels::kAdamW, master)) {
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
  if (has_cuda_form(CudaKernels::kAdamW, x)) return squared_norm_cuda(x);
  return x.is_cpu() ? squared_norm_cpu(x) : squared_norm_aten(x);
}

}  // namespace halo
