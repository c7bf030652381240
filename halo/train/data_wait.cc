#include "halo/train/data_wait.h"

#include <algorithm>

namespace halo {

void DataWait::add(double waited, double seconds) {
  steps_.push_back({waited, seconds});
  if (std::ssize(steps_) > kSteps) steps_.pop_front();
  waited_ = seconds_ = 0;
  for (const Step& step : steps_) {
    waited_ += step.waited;
    seconds_ += step.seconds;
  }
}

double DataWait::share() const {
  return seconds_ > 0 ? std::clamp(waited_ / seconds_, 0.0, 1.0) : 0;
}

bool DataWait::is_worth_a_warning() {
  constexpr double kShare = 0.1, kSeconds = 1;
  if (warned_ || std::ssize(steps_) < kSteps || seconds_ < kSeconds || share() <= kShare)
    return false;
  warned_ = true;
  return true;
}

}  // namespace halo
