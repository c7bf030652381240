// Watches loss and gradient norm for a run that diverges, and counts skipped updates.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

namespace halo {

class Health {
 public:
  // `factor`: TrainRecipe::diverged_factor.
  explicit Health(double factor) : factor_(factor) {}

  void add(double loss, double grad_norm, bool skipped);

  // What went wrong, as a clause of a sentence: the median norm of the last 20 updates exceeds
  // factor times the median of all before them, or the median loss of the last 50 is more than
  // eight times what it began at (the first, or the median of the first 20 where that is less, and
  // at least 0.1), or the gradient of the last 20 is exactly 0 (weights so large that nothing moves
  // the output any more).
  std::optional<std::string> diverged() const;
  // The rules on norms, on the last 5 alone, half of that on losses, on the last 5, or the last
  // update was skipped because the weights or its batch gave nothing finite: no moment to replace a
  // good checkpoint.
  bool suspicious() const;

  int64_t skipped() const { return skipped_; }
  int64_t skipped_in_a_row() const { return in_a_row_; }
  double first_loss() const;  // medians over 20 steps
  double last_loss() const;

 private:
  // Median of the last `window` norms over that of all before; 0 where fewer than 20 are before.
  double norm_growth(size_t window) const;
  double began_at() const;
  // Median of the last `window` losses over that; 0 where none is before.
  double loss_growth(size_t window) const;
  // The last `window` norms are 0 and the first was not.
  bool dead(size_t window) const;

  double factor_;
  std::vector<double> losses_, norms_;  // of the updates that were applied
  int64_t skipped_ = 0, in_a_row_ = 0;
};

}  // namespace halo
