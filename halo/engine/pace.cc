#include "halo/engine/pace.h"

#include <algorithm>
#include <utility>

#include "halo/base/median.h"
#include "halo/engine/trunk.h"

namespace halo {
namespace {

constexpr int64_t kStep = -1;
// Of the time, what the longest layer may take, so that another fits beside it.
constexpr double kLongest = 0.5;
// What it may be of it, where some is left of the calls before: more than 1, or what is left would
// never be used. A step beside a prompt takes at most 1 + kMost * share of one without: 1.86 at the
// default share of 0.8, and less than twice up to 0.93 (docs/results/serve-load.md).
constexpr double kMost = 1.07;

}  // namespace

double Pace::Recent::median() const {
  if (count_ == 0) return kNoLimit;
  const size_t known = std::min(count_, values_.size());
  return halo::median({values_.begin(), values_.begin() + static_cast<std::ptrdiff_t>(known)});
}

Pace::Pace(const DecoderWeights& weights) {
  for (const LayerWeights& layer : weights.layers) {
    const LayerFlops flops = flops_of(layer);
    layers_.push_back({flops.heads + flops.rest});
    if (const auto* attention = std::get_if<AttentionWeights>(&layer.mixer)) {
      layers_.back().of_seen = 4 * static_cast<double>(attention->heads * attention->head_dim);
    }
  }
}

void Pace::watch_step(const DeviceEvent& begin, const DeviceEvent& end) {
  watched_.push_back({kStep, {}, begin, end});
}

void Pace::watch_layer(int64_t layer, const Chunk& chunk, const DeviceEvent& begin,
                       const DeviceEvent& end) {
  watched_.push_back({layer, chunk, begin, end});
}

void Pace::look() {
  for (; !watched_.empty() && watched_.front().end.passed(); watched_.pop_front()) {
    const Watched& done = watched_.front();
    const double seconds = done.end.seconds_since(done.begin);
    done.layer == kStep ? count_step(seconds) : count_layer(done.layer, done.chunk, seconds);
  }
}

void Pace::count_step(double seconds) {
  step_.add(seconds);
}

void Pace::count_layer(int64_t layer, const Chunk& chunk, double seconds) {
  Layer& of = layers_[static_cast<size_t>(layer)];
  of.seconds_per_product.add(seconds / of.products(chunk));
}

double Pace::tokens_within(double seconds, int64_t past) const {
  double longest = 0;  // of a token's seconds
  for (const Layer& layer : layers_) {
    const double products = layer.of_token + layer.of_seen * static_cast<double>(past);
    longest = std::max(longest, products * layer.seconds_per_product.median());
  }
  return longest == kNoLimit ? kNoLimit : kLongest * seconds / longest;
}

int64_t Pace::layers_within(double seconds, int64_t first, const Chunk& chunk) {
  const auto end = std::ssize(layers_);
  const double has = std::exchange(left_, 0) + seconds, now = std::min(has, kMost * seconds);
  if (now == kNoLimit) return end - first;
  double used = 0;
  int64_t layer = first;
  for (; layer < end; ++layer) {
    const Layer& next = layers_[static_cast<size_t>(layer)];
    const double takes = next.products(chunk) * next.seconds_per_product.median();
    if (used + takes > now && layer > first) break;
    used += takes;
  }
  left_ = std::clamp(has - used, 0.0, seconds);
  return layer - first;
}

}  // namespace halo
