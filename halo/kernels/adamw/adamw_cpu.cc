// AdamW in one pass over the arenas (it is bound by memory), and the squared norm. See README.md.
#include <algorithm>
#include <array>
#include <vector>

#include "ATen/ATen.h"
#include "ATen/Parallel.h"
#include "halo/kernels/adamw/adamw_forms.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "halo/kernels/adamw/adamw_cpu.cc"
#include "hwy/foreach_target.h"
// After foreach_target.h: this is read once a target.
#include "hwy/highway.h"

#ifndef HALO_KERNELS_ADAMW_RANGE_
#define HALO_KERNELS_ADAMW_RANGE_
namespace halo {

struct AdamWArenas {
  float *master, *m, *v;
  const float *grad, *decay_mask;  // decay_mask may be null
  float grad_scale;
  AdamWFactors factors;
};

}  // namespace halo
#endif

HWY_BEFORE_NAMESPACE();
namespace halo {
namespace HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

// Elements begin .. end-1; end - begin is a multiple of the tag's lanes. An element's bits do not
// depend on the tag.
template <class D>
HWY_INLINE void adamw_elements(D d, const AdamWArenas& a, int64_t begin, int64_t end) {
  const AdamWFactors& f = a.factors;
  const auto scale = hn::Set(d, a.grad_scale);
  const auto keep1 = hn::Set(d, f.keep1), take1 = hn::Set(d, f.take1);
  const auto keep2 = hn::Set(d, f.keep2), take2 = hn::Set(d, f.take2);
  const auto step = hn::Set(d, f.step), inverse_bias2 = hn::Set(d, f.inverse_bias2);
  const auto eps = hn::Set(d, f.eps), decay = hn::Set(d, f.decay);
  const int64_t lanes = hn::Lanes(d);
  for (int64_t i = begin; i < end; i += lanes) {
    const auto g = hn::Mul(hn::LoadU(d, a.grad + i), scale);
    const auto m = hn::MulAdd(keep1, hn::LoadU(d, a.m + i), hn::Mul(take1, g));
    const auto v = hn::MulAdd(keep2, hn::LoadU(d, a.v + i), hn::Mul(take2, hn::Mul(g, g)));
    hn::StoreU(m, d, a.m + i);
    hn::StoreU(v, d, a.v + i);
    auto master = hn::LoadU(d, a.master + i);
    const auto change = hn::Div(m, hn::MulAdd(hn::Sqrt(v), inverse_bias2, eps));
    if (a.decay_mask) {
      const auto shrink = hn::Mul(decay, hn::LoadU(d, a.decay_mask + i));
      master = hn::NegMulAdd(shrink, master, master);
    }
    hn::StoreU(hn::NegMulAdd(step, change, master), d, a.master + i);
  }
}

void adamw_range(const AdamWArenas& arenas, int64_t begin, int64_t end) {
  const hn::ScalableTag<float> vectors;
  const hn::CappedTag<float, 1> single;
  const int64_t lanes = hn::Lanes(vectors);
  const int64_t whole = begin + (end - begin) / lanes * lanes;
  adamw_elements(vectors, arenas, begin, whole);
  adamw_elements(single, arenas, whole, end);
}

}  // namespace HWY_NAMESPACE
}  // namespace halo
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace halo {
namespace {

// A product of two floats is exact in fp64, so only the additions round, in sixteen lanes that no
// machine's vector width can change.
double block_squares(const float* x, int64_t count) {
  constexpr int64_t kLanes = 16;
  std::array<double, kLanes> lanes{};
  int64_t i = 0;
  for (; i + kLanes <= count; i += kLanes) {
    for (int64_t j = 0; j < kLanes; ++j) lanes[j] += static_cast<double>(x[i + j]) * x[i + j];
  }
  for (; i < count; ++i) lanes[i % kLanes] += static_cast<double>(x[i]) * x[i];
  for (int64_t half = kLanes / 2; half > 0; half /= 2) {
    for (int64_t j = 0; j < half; ++j) lanes[j] += lanes[j + half];
  }
  return lanes[0];
}

}  // namespace

HWY_EXPORT(adamw_range);

void adamw_step_cpu(at::Tensor& master, const at::Tensor& grad, at::Tensor& m, at::Tensor& v,
                    const at::Tensor& decay_mask, const AdamWStep& args) {
  if (args.apply.item<float>() == 0) return;
  const AdamWArenas arenas{
      .master = master.mutable_data_ptr<float>(),
      .m = m.mutable_data_ptr<float>(),
      .v = v.mutable_data_ptr<float>(),
      .grad = grad.const_data_ptr<float>(),
      .decay_mask = decay_mask.defined() ? decay_mask.const_data_ptr<float>() : nullptr,
      .grad_scale = args.grad_scale.item<float>(),
      .factors = adamw_factors(args)};
  at::parallel_for(0, master.numel(), at::internal::GRAIN_SIZE, [&](int64_t begin, int64_t end) {
    HWY_DYNAMIC_DISPATCH(adamw_range)(arenas, begin, end);
  });
}

at::Tensor squared_norm_cpu(const at::Tensor& x) {
  const int64_t count = x.numel();
  const int64_t blocks = (count + kNormBlock - 1) / kNormBlock;
  const float* values = x.const_data_ptr<float>();
  std::vector<double> partial(blocks);
  at::parallel_for(0, blocks, 1, [&](int64_t begin, int64_t end) {
    for (int64_t b = begin; b < end; ++b) {
      partial[b] =
          block_squares(values + b * kNormBlock, std::min(kNormBlock, count - b * kNormBlock));
    }
  });
  double total = 0;
  for (double value : partial) total += value;
  return at::scalar_tensor(total, at::kDouble);
}

}  // namespace halo
#endif  // HWY_ONCE
