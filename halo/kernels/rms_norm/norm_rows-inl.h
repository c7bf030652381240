// RMSNorm of one fp32 row (Highway, read once a target).
#if defined(HALO_KERNELS_NORM_ROWS_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef HALO_KERNELS_NORM_ROWS_INL_H_
#undef HALO_KERNELS_NORM_ROWS_INL_H_
#else
#define HALO_KERNELS_NORM_ROWS_INL_H_
#endif

#include <cmath>

#include "halo/kernels/cpu/columns-inl.h"
#include "halo/kernels/rms_norm/rms_norm_forms.h"

HWY_BEFORE_NAMESPACE();
namespace halo {
namespace HWY_NAMESPACE {

HWY_INLINE float reciprocal_rms(const RowNorm& norm, const float* x) {
  const float squares = sum_columns(norm.columns, [x](auto d, int64_t c) HWY_ATTR {
    const auto v = hn::LoadU(d, x + c);
    return hn::Mul(v, v);
  });
  return 1.0f / std::sqrt(squares / static_cast<float>(norm.columns) + norm.eps);
}

// dx [D] from dy [D]; dx may be dy. Adds to dw [D] (null: not wanted).
// `direct` (null: nothing) is added to dx.
HWY_INLINE void norm_backward_row(const RowNorm& norm, const float* x, const float* dy,
                                  const float* direct, float* dx, float* dw) {
  const float rstd = reciprocal_rms(norm, x);
  if (dw) {
    for_columns(norm.columns, [&](auto d, int64_t c) HWY_ATTR {
      const auto xhat = hn::Mul(hn::LoadU(d, x + c), hn::Set(d, rstd));
      hn::StoreU(hn::MulAdd(hn::LoadU(d, dy + c), xhat, hn::LoadU(d, dw + c)), d, dw + c);
    });
  }
  const float along = sum_columns(norm.columns, [&](auto d, int64_t c) HWY_ATTR {
    const auto weighted = hn::Mul(hn::LoadU(d, dy + c), hn::LoadU(d, norm.w + c));
    return hn::Mul(weighted, hn::LoadU(d, x + c));
  });
  const float pull = along * rstd * rstd / static_cast<float>(norm.columns);
  for_columns(norm.columns, [&](auto d, int64_t c) HWY_ATTR {
    const auto weighted = hn::Mul(hn::LoadU(d, dy + c), hn::LoadU(d, norm.w + c));
    const auto across = hn::NegMulAdd(hn::Set(d, pull), hn::LoadU(d, x + c), weighted);
    auto out = hn::Mul(across, hn::Set(d, rstd));
    if (direct) out = hn::Add(out, hn::LoadU(d, direct + c));
    hn::StoreU(out, d, dx + c);
  });
}

}  // namespace HWY_NAMESPACE
}  // namespace halo
HWY_AFTER_NAMESPACE();

#endif  // HALO_KERNELS_NORM_ROWS_INL_H_
