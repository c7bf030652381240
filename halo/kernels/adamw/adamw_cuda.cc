// AdamW by the kernels of adamw.cu.
#include "ATen/ATen.h"
#include "halo/kernels/adamw/adamw_forms.h"
#include "halo/kernels/cuda/cuda_kernels.h"

namespace halo {

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

}  // namespace halo
