// AdamW in LibTorch operations, which read nothing back from the device: a skipped step is a choice
// between old and new values made there.
#include <algorithm>

#include "ATen/ATen.h"
#include "halo/kernels/adamw/adamw_forms.h"

namespace halo {
namespace {

// Elements of an arena handled at once, so that temporaries stay at 64 MB (128 MB in fp64) each.
constexpr int64_t kBlock = int64_t{1} << 24;

}  // namespace

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

at::Tensor squared_norm_aten(const at::Tensor& x) {
  auto total = at::zeros({}, x.options().dtype(at::kDouble));
  for (int64_t begin = 0; begin < x.numel(); begin += kBlock) {
    auto block = x.narrow(0, begin, std::min(kBlock, x.numel() - begin)).to(at::kDouble);
    total.add_(block.square_().sum());
  }
  return total;
}

}  // namespace halo
