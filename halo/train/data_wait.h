// How much of its time a training waits for batches.
#pragma once

#include <cstdint>
#include <deque>

namespace halo {

class DataWait {
 public:
  // A step that took `seconds`, of which nothing ran for `waited` because its batches were not
  // there.
  void add(double waited, double seconds);
  // Of the last 20 steps' time, 0 to 1.
  double share() const;
  // Once, where that is more than a tenth, and the 20 steps took a second or more: shorter ones are
  // no training whose time matters.
  bool is_worth_a_warning();

  static constexpr int64_t kSteps = 20;

 private:
  struct Step {
    double waited, seconds;
  };
  std::deque<Step> steps_;
  double waited_ = 0, seconds_ = 0;  // of `steps_`
  bool warned_ = false;
};

}  // namespace halo
