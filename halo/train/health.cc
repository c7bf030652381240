// Divergence rules over the history of a run.
#include "halo/train/health.h"

#include <algorithm>

#include "halo/base/check.h"
#include "halo/base/median.h"

namespace halo {
namespace {

constexpr size_t kNormWindow = 20, kShortNormWindow = 5;
constexpr size_t kStart = 20;
// Longer than those of norms, since the losses of single steps differ by a factor of five where
// their rows do.
constexpr size_t kLossWindow = 50, kShortLossWindow = 5;
constexpr double kLossFactor = 8;
// Nats, from which on growth counts: a model next to its teacher may well be eight times as far.
constexpr double kLeastStart = 0.1;

std::vector<double> first(const std::vector<double>& values, size_t n) {
  return {values.begin(), values.begin() + static_cast<std::ptrdiff_t>(n)};
}

std::vector<double> last(const std::vector<double>& values, size_t n) {
  return {values.end() - static_cast<std::ptrdiff_t>(std::min(n, values.size())), values.end()};
}

}  // namespace

void Health::add(double loss, double grad_norm, bool skipped) {
  if (skipped) {
    skipped_ += 1;
    in_a_row_ += 1;
    return;
  }
  in_a_row_ = 0;
  losses_.push_back(loss);
  norms_.push_back(grad_norm);
}

double Health::norm_growth(size_t window) const {
  if (norms_.size() < window + kStart) return 0;
  const double before = median(first(norms_, norms_.size() - window));
  return before > 0 ? median(last(norms_, window)) / before : 0;
}

// Too high a rate throws a model off with the first updates, so that the first loss alone is that
// of the weights which the run began with; but its rows may be harder than others.
double Health::began_at() const {
  return losses_.empty() ? 0 : std::min(losses_.front(), first_loss());
}

double Health::loss_growth(size_t window) const {
  if (losses_.size() <= window) return 0;
  return median(last(losses_, window)) / std::max(began_at(), kLeastStart);
}

bool Health::dead(size_t window) const {
  if (norms_.size() < window || norms_.front() == 0) return false;
  const auto norms = last(norms_, window);
  return std::all_of(norms.begin(), norms.end(), [](double norm) { return norm == 0; });
}

std::optional<std::string> Health::diverged() const {
  if (factor_ == 0) return std::nullopt;
  if (dead(kNormWindow)) {
    return fmt::format("the gradient of the last {} updates is exactly 0", kNormWindow);
  }
  if (const double growth = norm_growth(kNormWindow); growth > factor_) {
    return fmt::format("the gradient norm of the last {} updates is {:.0f} times what it was",
                       kNormWindow, growth);
  }
  if (const double growth = loss_growth(kLossWindow); growth > kLossFactor) {
    return fmt::format(
        "the loss of the last {} updates is {:.2g} times the {:.4g} that it began at", kLossWindow,
        growth, began_at());
  }
  return std::nullopt;
}

bool Health::suspicious() const {
  if (in_a_row_ > 0) return true;
  return factor_ != 0 && (dead(kShortNormWindow) || norm_growth(kShortNormWindow) > factor_ ||
                          loss_growth(kShortLossWindow) > kLossFactor / 2);
}

double Health::first_loss() const {
  if (losses_.empty()) return 0;
  return median(first(losses_, std::min(kStart, losses_.size())));
}

double Health::last_loss() const {
  return losses_.empty() ? 0 : median(last(losses_, kStart));
}

}  // namespace halo
