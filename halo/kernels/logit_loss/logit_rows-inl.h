// Passes over one row of logits, written once for every vector width (Highway). No guard of the
// usual kind: a file that is compiled once a target includes this once a target.
#if defined(HALO_KERNELS_LOGIT_ROWS_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef HALO_KERNELS_LOGIT_ROWS_INL_H_
#undef HALO_KERNELS_LOGIT_ROWS_INL_H_
#else
#define HALO_KERNELS_LOGIT_ROWS_INL_H_
#endif

#include <algorithm>
#include <cstdint>

#include "hwy/contrib/math/math-inl.h"
#include "hwy/highway.h"

HWY_BEFORE_NAMESPACE();
namespace halo {
namespace HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

// Columns whose fp32 partial sums are added up before they go into an fp64 total.
inline constexpr int64_t kSumBlock = 4096;

// body(tag, begin, end): whole vectors, at most kSumBlock columns a call, then the columns that are
// left one at a time.
template <class Body>
HWY_INLINE void for_blocks(int64_t columns, const Body& body) {
  const hn::ScalableTag<float> vectors;
  const hn::CappedTag<float, 1> single;
  const int64_t lanes = hn::Lanes(vectors);
  const int64_t whole = columns / lanes * lanes;
  for (int64_t begin = 0; begin < whole; begin += kSumBlock) {
    body(vectors, begin, std::min(begin + kSumBlock, whole));
  }
  if (whole < columns) body(single, whole, columns);
}

// max of x[begin .. end) and `so_far`; end - begin is a multiple of the tag's lanes.
template <class D>
HWY_INLINE float block_max(D d, const float* x, int64_t begin, int64_t end, float so_far) {
  auto most = hn::Set(d, so_far);
  const int64_t lanes = hn::Lanes(d);
  for (int64_t i = begin; i < end; i += lanes) most = hn::Max(most, hn::LoadU(d, x + i));
  return hn::GetLane(hn::MaxOfLanes(d, most));
}

HWY_INLINE float row_max(const float* x, int64_t columns) {
  float most = x[0];
  for_blocks(columns, [&](auto d, int64_t begin, int64_t end)
                          HWY_ATTR { most = block_max(d, x, begin, end, most); });
  return most;
}

}  // namespace HWY_NAMESPACE
}  // namespace halo
HWY_AFTER_NAMESPACE();

#endif
