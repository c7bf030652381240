// Rotary tables and logit scales of a batch's positions, computed when a layer first asks and
// shared by those that follow.
#pragma once

#include <memory>
#include <optional>
#include <utility>
#include <vector>

#include "halo/formats/model_config.h"
#include "halo/kernels/rope/rope.h"

namespace halo {

class PositionCache {
 public:
  explicit PositionCache(at::Tensor positions /* [N] int64 */);

  // For the positions as they are now; keeps the frequencies that the device was sent.
  std::shared_ptr<PositionCache> without_tables() const;

  // None for no frequencies.
  std::optional<RopeTables> rope(const std::vector<double>& inv_freq, double magnitude);
  std::optional<at::Tensor> scale(const LogitScale& scale);  // [N] fp32; none where it is 1

 private:
  struct Entry {
    std::vector<double> inv_freq;
    double magnitude;
    RopeTables tables;
  };
  using Frequencies = std::vector<std::pair<std::vector<double>, at::Tensor>>;

  at::Tensor on_device(const std::vector<double>& inv_freq);

  at::Tensor positions_;
  std::shared_ptr<Frequencies> frequencies_ = std::make_shared<Frequencies>();
  std::vector<Entry> tables_;
  std::vector<std::pair<LogitScale, at::Tensor>> scales_;
};

}  // namespace halo
