#include "halo/stages/scale_rule.h"

#include <algorithm>
#include <cmath>

#include "halo/base/check.h"

namespace halo {

size_t choose_scale(const std::vector<ScaleFigures>& candidates) {
  HALO_CHECK(!candidates.empty(), "choose_scale: no candidates");
  const auto best = std::ranges::max_element(candidates, {}, &ScaleFigures::accuracy);
  const double error = std::isfinite(best->accuracy_error) ? best->accuracy_error : 0;
  size_t chosen = static_cast<size_t>(best - candidates.begin());
  for (size_t i = 0; i < candidates.size(); ++i) {
    const ScaleFigures &c = candidates[i], &now = candidates[chosen];
    if (c.accuracy < best->accuracy - error) continue;
    if (c.loss < now.loss || (c.loss == now.loss && c.a > now.a)) chosen = i;
  }
  return chosen;
}

}  // namespace halo
