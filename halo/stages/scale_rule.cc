#include "halo/stages/scale_rule.h"

#include <algorithm>
#include <cmath>

#include "halo/base/check.h"

namespace halo {

std::vector<int64_t> lengths_beyond(const std::vector<int64_t>& given, int64_t training_length) {
  if (given.empty()) return {4 * training_length, 8 * training_length};
  const int64_t longest = std::ranges::max(given);
  if (longest <= training_length) {
    throw_error(
        "scale.lengths: the longest is {}, but the logit scale is searched beyond the training "
        "length, which is {} tokens (scale.training_length, or max_position_embeddings of the "
        "teacher, or sequence_length of a stage); give longer ones, or none for {} and {}",
        longest, training_length, 4 * training_length, 8 * training_length);
  }
  return given;
}

std::vector<double> refined(std::vector<double> tried, double best) {
  constexpr double kClose = 1.1;
  std::ranges::sort(tried);
  const auto at = std::ranges::find(tried, best);
  HALO_CHECK(at != tried.end(), "refined: {} was not tried", best);
  std::vector<double> next;
  const auto between = [&](double a, double b) {
    if (b / a >= kClose) next.push_back(std::round(std::sqrt(a * b)));
  };
  if (at != tried.begin()) between(*(at - 1), best);
  if (at + 1 != tried.end()) between(best, *(at + 1));
  return next;
}

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
