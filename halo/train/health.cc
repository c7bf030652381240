// Divergence rules over the history of a run.
#include "halo/train/health.h"

#include <algorithm>

#include "halo/base/check.h"
#include "halo/base/median.h"

namespace halo {
namespace {

constexpr size_t kNormWindow = 20, kShortNormWindow = 5;
constexpr size_t kStart = 20, kLossWindow = 200;
constexpr double kLossFactor = 3;

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
  if (losses_.size() < kStart + kLossWindow) return std::nullopt;
  const double start = first_loss(), now = median(last(losses_, kLossWindow));
  if (now > kLossFactor * start && start > 0) {
    return fmt::format("the loss of the last {} updates is {:.4g}, it began at {:.4g}", kLossWindow,
                       now, start);
  }
  return std::nullopt;
}

bool Health::suspicious() const {
  if (in_a_row_ > 0) return true;
  return factor_ != 0 && (dead(kShortNormWindow) || norm_growth(kShortNormWindow) > factor_);
}

double Health::first_loss() const {
  if (losses_.empty()) return 0;
  return median(first(losses_, std::min(kStart, losses_.size())));
}

double Health::last_loss() const {
  return losses_.empty() ? 0 : median(last(losses_, kStart));
}

}  // namespace halo
