// fp32 vectors of numbers that are stored in fp32, bf16 or int8 (Highway, read once a target).
#if defined(HALO_KERNELS_LOAD_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef HALO_KERNELS_LOAD_INL_H_
#undef HALO_KERNELS_LOAD_INL_H_
#else
#define HALO_KERNELS_LOAD_INL_H_
#endif

#include <cstdint>

#include "hwy/highway.h"

HWY_BEFORE_NAMESPACE();
namespace halo {
namespace HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

template <class D>
HWY_INLINE hn::Vec<D> load(D d, const float* from) {
  return hn::LoadU(d, from);
}
template <class D>
HWY_INLINE hn::Vec<D> load(D d, const hwy::bfloat16_t* from) {
  return hn::PromoteTo(d, hn::LoadU(hn::Rebind<hwy::bfloat16_t, D>(), from));
}
template <class D>
HWY_INLINE hn::Vec<D> load(D d, const int8_t* from) {
  const hn::Rebind<int32_t, D> wide;
  return hn::ConvertTo(d, hn::PromoteTo(wide, hn::LoadU(hn::Rebind<int8_t, D>(), from)));
}

}  // namespace HWY_NAMESPACE
}  // namespace halo
HWY_AFTER_NAMESPACE();

#endif  // HALO_KERNELS_LOAD_INL_H_
