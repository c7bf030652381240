#include "halo/model/position_cache.h"

#include "ATen/ATen.h"
#include "halo/kernels/common/sequences.h"

namespace halo {

PositionCache::PositionCache(at::Tensor positions) : positions_(std::move(positions)) {}

std::shared_ptr<PositionCache> PositionCache::without_tables() const {
  auto out = std::make_shared<PositionCache>(positions_);
  out->frequencies_ = frequencies_;
  return out;
}

std::optional<RopeTables> PositionCache::rope(const std::vector<double>& inv_freq,
                                              double magnitude) {
  if (inv_freq.empty()) return std::nullopt;
  for (const auto& entry : tables_) {
    if (entry.inv_freq == inv_freq && entry.magnitude == magnitude) return entry.tables;
  }
  RopeTables tables = rope_tables(positions_, on_device(inv_freq));
  if (magnitude != 1) {
    tables.cos = tables.cos * magnitude;
    tables.sin = tables.sin * magnitude;
  }
  tables_.push_back({inv_freq, magnitude, tables});
  return tables;
}

std::optional<at::Tensor> PositionCache::scale(const LogitScale& scale) {
  if (scale.kind == LogitScale::Kind::kNone) return std::nullopt;
  for (const auto& [known, values] : scales_) {
    if (known == scale) return values;
  }
  at::Tensor values =
      scale.kind == LogitScale::Kind::kLogPosition
          ? log_position_scale(positions_, scale.a)
          : at::full({positions_.size(0)}, scale.constant, positions_.options().dtype(at::kFloat));
  scales_.emplace_back(scale, values);
  return values;
}

at::Tensor PositionCache::on_device(const std::vector<double>& inv_freq) {
  for (const auto& [known, tensor] : *frequencies_) {
    if (known == inv_freq) return tensor;
  }
  frequencies_->emplace_back(inv_freq,
                             to_device(at::tensor(inv_freq, at::kDouble), positions_.device()));
  return frequencies_->back().second;
}

}  // namespace halo
