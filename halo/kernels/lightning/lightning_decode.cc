// Checks, the form that is composed of split_heads and lightning_attention, and the choice of the
// kernel.
#include "halo/kernels/lightning/lightning_decode.h"

#include <cmath>

#include "ATen/ATen.h"
#include "halo/base/check.h"
#include "halo/kernels/cuda/cuda_kernels.h"
#include "halo/kernels/lightning/lightning.h"
#include "halo/kernels/lightning/lightning_decode_launch.h"

namespace halo {
namespace {

void check(const at::Tensor& stacked, const LightningDecode& args, const at::Tensor& states,
           const at::Tensor& slots) {
  const int64_t h = args.split.heads, d = args.split.head_dim;
  HALO_CHECK(states.dim() == 4 && states.size(1) == h && states.size(2) == d &&
                 states.size(3) == d && states.scalar_type() == at::kFloat &&
                 states.is_contiguous(),
             "lightning_decode: the states must be contiguous fp32 [slots, {}, {}, {}]", h, d, d);
  HALO_CHECK(slots.dim() == 1 && slots.scalar_type() == at::kLong && slots.numel() > 0 &&
                 stacked.dim() == 2 && stacked.size(0) % slots.numel() == 0,
             "lightning_decode: {} rows for {} slots", stacked.size(0), slots.numel());
  HALO_CHECK(std::ssize(args.slopes) == h, "lightning_decode: {} slopes for {} heads",
             args.slopes.size(), h);
}

const void* data_of(const at::Tensor& x) {
  return x.defined() ? x.const_data_ptr() : nullptr;
}

at::Tensor run_kernel(const at::Tensor& stacked, const LightningDecode& args,
                      const at::Tensor& states, const at::Tensor& slots) {
  const DeviceStream stream(stacked);
  const at::Tensor o =
      at::empty({stacked.size(0), args.split.heads * args.split.head_dim}, stacked.options());
  LightningDecodeLaunch launch{.element = element_of(stacked),
                               .sequences = slots.numel(),
                               .tokens = stacked.size(0) / slots.numel(),
                               .heads = args.split.heads,
                               .kv_heads = args.split.kv_heads,
                               .head_dim = args.split.head_dim,
                               .eps = static_cast<float>(args.split.eps),
                               .scale = static_cast<float>(args.scale),
                               .stacked = stacked.const_data_ptr(),
                               .stride = stacked.size(1),
                               .q_norm = data_of(args.q_norm.value),
                               .k_norm = data_of(args.k_norm.value),
                               .cos = args.rope ? args.rope->cos.const_data_ptr<float>() : nullptr,
                               .sin = args.rope ? args.rope->sin.const_data_ptr<float>() : nullptr,
                               .slots = slots.const_data_ptr<int64_t>(),
                               .states = states.mutable_data_ptr<float>(),
                               .o = o.mutable_data_ptr()};
  for (size_t h = 0; h < args.slopes.size(); ++h)
    launch.losses[h] = static_cast<float>(-std::expm1(-args.slopes[h]));
  launch_lightning_decode(launch, stream.handle());
  return o;
}

// Reads the slots on the host where some are negative.
at::Tensor composed(const at::Tensor& stacked, const LightningDecode& args, at::Tensor states,
                    const at::Tensor& slots, Kernels kernels) {
  const Heads heads =
      split_heads(stacked, args.split, args.q_norm, args.k_norm, args.rope, std::nullopt);
  const int64_t count = slots.numel(), tokens = stacked.size(0) / count;
  std::vector<int64_t> offsets(count + 1);
  for (int64_t s = 0; s <= count; ++s) offsets[s] = s * tokens;
  const LightningArgs lightning{heads.q,    heads.k,
                                heads.v,    args.slopes,
                                args.scale, states.index_select(0, slots.clamp_min(0))};
  const LightningResult result =
      lightning_attention(lightning, Sequences(std::move(offsets), stacked.device()), kernels);
  const at::Tensor here = slots.ge(0).nonzero().flatten();
  states.index_copy_(0, slots.index_select(0, here), result.state.index_select(0, here));
  return result.o.flatten(1);
}

}  // namespace

bool has_lightning_decode_kernel(const at::Tensor& like, int64_t heads, int64_t head_dim) {
  return has_cuda_kernels(CudaKernels::kLightningDecode, like) &&
         (head_dim == 64 || head_dim == 128) && heads <= kMostDecodeHeads;
}

at::Tensor lightning_decode(const at::Tensor& stacked, const LightningDecode& args,
                            const at::Tensor& states, const at::Tensor& slots, Kernels kernels) {
  const at::NoGradGuard no_grad;
  check(stacked, args, states, slots);
  const at::Tensor rows = stacked.contiguous();
  return has_lightning_decode_kernel(rows, args.split.heads, args.split.head_dim)
             ? run_kernel(rows, args, states, slots)
             : composed(rows, args, states, slots, kernels);
}

}  // namespace halo
