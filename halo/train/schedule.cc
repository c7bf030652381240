// The learning rate of each update.
#include "halo/train/schedule.h"

#include <cmath>
#include <numbers>

#include "halo/base/check.h"

namespace halo {

double Schedule::rate(int64_t k) const {
  HALO_CHECK(k >= 1 && k <= steps, "schedule: update {} of {}", k, steps);
  if (curve == RateCurve::kWarmupCosineLate) k -= 1;
  if (warmup > 0 && k <= warmup) return peak * static_cast<double>(k) / warmup;
  if (curve == RateCurve::kConstant) return peak;
  double progress = static_cast<double>(k - warmup) / (steps - warmup);
  return minimum + (peak - minimum) * (1 + std::cos(std::numbers::pi * progress)) / 2;
}

}  // namespace halo
