// The learning rate of each update (hypenet.md 2.2).
#pragma once

#include <cstdint>

#include "halo/base/settings.h"

namespace halo {

// The learning rate over the updates.
enum class RateCurve {
  kWarmupCosine,
  kWarmupCosineLate,  // the same one update late, so that the first has rate 0
  kConstant,          // warm-up, then the peak
};
inline constexpr Word<RateCurve> kRateCurves[] = {
    {"warmup-cosine", RateCurve::kWarmupCosine, "halo"},
    {"warmup-cosine-late", RateCurve::kWarmupCosineLate, "paper"},
    {"constant", RateCurve::kConstant}};

struct Schedule {
  RateCurve curve = RateCurve::kWarmupCosine;
  double peak = 0, minimum = 0;
  int64_t warmup = 0, steps = 0;

  // Rate of update k = 1 .. steps: for k <= w it is peak k/w, then
  // minimum + (peak - minimum)(1 + cos(pi (k-w)/(steps-w)))/2.
  double rate(int64_t k) const;
};

}  // namespace halo
