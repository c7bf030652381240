// How a pass of lightning attention is cut along the token axis to fill the device
// (docs/math/lightning.md, section 3).

#include <algorithm>
#include <cmath>

#include "halo/kernels/lightning/lightning_launch.h"

namespace halo {
namespace {

constexpr int64_t kStep = 64;  // tokens; a segment is a multiple, as blocks work in such chunks
// Shorter segments would cost more to start than they save.
constexpr int64_t kShortest = 4 * kStep;
// A token of the warm-up reads k and v; one of the segment reads q too and writes o.
constexpr double kWarmupCost = 0.5;

int64_t round_up(int64_t tokens) {
  return (tokens + kStep - 1) / kStep * kStep;
}

// The tokens before a segment that its state still remembers.
int64_t memory(double slope, int64_t max_length, int bits) {
  const double horizon = bits * std::log(2.0) / slope;  // infinite where nothing decays
  const int64_t most = round_up(std::max<int64_t>(max_length - 1, 0));
  return horizon < static_cast<double>(most) ? round_up(static_cast<int64_t>(std::ceil(horizon)))
                                             : most;
}

}  // namespace

std::vector<HeadSegments> plan_segments(const LightningShape& shape, int64_t slots, int bits) {
  const int64_t whole = round_up(std::max<int64_t>(shape.tokens, 1));
  const auto heads = static_cast<int64_t>(shape.slopes.size());
  std::vector<HeadSegments> plan(heads);
  for (int64_t h = 0; h < heads; ++h)
    plan[h].warmup = memory(shape.slopes[h], shape.max_length, bits);
  // The longest segment of a head whose cost, warm-up included, is at most `cost`; 0: none.
  const auto segment = [&](int64_t h, int64_t cost) -> int64_t {
    if (cost >= whole) return whole;
    const int64_t left = cost - std::llround(kWarmupCost * static_cast<double>(plan[h].warmup));
    if (left < kShortest) return 0;
    const int64_t pieces = (whole + left - 1) / left;
    return round_up((whole + pieces - 1) / pieces);
  };
  const auto fits = [&](int64_t cost) {
    int64_t items = 0;
    for (int64_t h = 0; h < heads; ++h) {
      const int64_t length = segment(h, cost);
      if (length == 0) return false;
      items += (whole + length - 1) / length;
    }
    return items <= std::max(slots, heads);
  };
  int64_t low = 0, high = whole;  // the whole axis as one segment a head always fits
  while (high - low > kStep) {
    const int64_t middle = (low + high) / 2;
    (fits(middle) ? high : low) = middle;
  }
  for (int64_t h = 0; h < heads; ++h) plan[h].segment = segment(h, high);
  return plan;
}

}  // namespace halo
