// Loops over the columns of one fp32 row, for the CPU forms (Highway, read once a target).
// An element's bits do not depend on the tag, so tails take the same code one element at a time.
#if defined(HALO_KERNELS_COLUMNS_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef HALO_KERNELS_COLUMNS_INL_H_
#undef HALO_KERNELS_COLUMNS_INL_H_
#else
#define HALO_KERNELS_COLUMNS_INL_H_
#endif

#include <cstdint>

#include "hwy/contrib/math/math-inl.h"
#include "hwy/highway.h"

HWY_BEFORE_NAMESPACE();
namespace halo {
namespace HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

// f(tag, column) for all columns.
template <class F>
HWY_INLINE void for_columns(int64_t columns, const F& f) {
  const hn::ScalableTag<float> d;
  const hn::CappedTag<float, 1> one;
  const int64_t lanes = hn::Lanes(d);
  int64_t c = 0;
  for (; c + lanes <= columns; c += lanes) f(d, c);
  for (; c < columns; ++c) f(one, c);
}

// Sum of f(tag, column) over all columns, in an order that depends on their number alone.
template <class F>
HWY_INLINE float sum_columns(int64_t columns, const F& f) {
  const hn::ScalableTag<float> d;
  const hn::CappedTag<float, 1> one;
  const int64_t lanes = hn::Lanes(d);
  auto sum0 = hn::Zero(d), sum1 = hn::Zero(d), sum2 = hn::Zero(d), sum3 = hn::Zero(d);
  int64_t c = 0;
  for (; c + 4 * lanes <= columns; c += 4 * lanes) {
    sum0 = hn::Add(sum0, f(d, c));
    sum1 = hn::Add(sum1, f(d, c + lanes));
    sum2 = hn::Add(sum2, f(d, c + 2 * lanes));
    sum3 = hn::Add(sum3, f(d, c + 3 * lanes));
  }
  for (; c + lanes <= columns; c += lanes) sum0 = hn::Add(sum0, f(d, c));
  auto tail = hn::Zero(one);
  for (; c < columns; ++c) tail = hn::Add(tail, f(one, c));
  const auto total = hn::Add(hn::Add(sum0, sum1), hn::Add(sum2, sum3));
  return hn::GetLane(hn::SumOfLanes(d, total)) + hn::GetLane(tail);
}

// 1 / (1 + exp(-x)). Below -88 exp(-x) would overflow; Exp loses NaN.
template <class D, class V = hn::Vec<D>>
HWY_INLINE V sigmoid(D d, V x) {
  const V one = hn::Set(d, 1.0f);
  const V y = hn::Div(one, hn::Add(one, hn::Exp(d, hn::Min(hn::Neg(x), hn::Set(d, 88.0f)))));
  return hn::IfThenElse(hn::IsNaN(x), x, y);
}

}  // namespace HWY_NAMESPACE
}  // namespace halo
HWY_AFTER_NAMESPACE();

#endif  // HALO_KERNELS_COLUMNS_INL_H_
