// How much of prompts is read between two steps of those that decode: as long as a share of what
// such a step takes, by what the steps and the layers before took. A chunk is cut between layers,
// so the longest layer decides how many tokens a chunk may have, and what is left of a step's time
// where the next layer does not fit goes to the next step.
#pragma once

#include <array>
#include <cstdint>
#include <deque>
#include <limits>
#include <vector>

#include "halo/model/decoder.h"
#include "halo/runtime/device_event.h"

namespace halo {

class Pace {
 public:
  static constexpr double kNoLimit = std::numeric_limits<double>::infinity();

  explicit Pace(const DecoderWeights& weights);

  // Tokens of a call, and how many tokens each of them sees, all together.
  struct Chunk {
    int64_t tokens = 0;
    double seen = 0;
    void add(int64_t count, int64_t past) {
      tokens += count;
      const auto of = static_cast<double>(count);
      seen += of * (static_cast<double>(past) + of / 2);
    }
  };

  // What the device was given between two moments; counted once it is done.
  void watch_step(const DeviceEvent& begin, const DeviceEvent& end);
  void watch_layer(int64_t layer, const Chunk& chunk, const DeviceEvent& begin,
                   const DeviceEvent& end);
  void look();  // for what is done by now
  void count_step(double seconds);
  void count_layer(int64_t layer, const Chunk& chunk, double seconds);

  // What follows is kNoLimit where nothing was counted yet.
  // Of a step of those that decode.
  double step_seconds() const { return step_.median(); }
  // Most tokens behind a past of so many of which each layer takes at most half of so long.
  double tokens_within(double seconds, int64_t past) const;
  // Layers from `first` on, to be run now, that take so long together and what the calls before
  // left of their time, a little more than so long at most; one at least.
  int64_t layers_within(double seconds, int64_t first, const Chunk& chunk);

 private:
  // The last values, of which the median leaves out one that something else was in the way of.
  class Recent {
   public:
    void add(double value) { values_[count_++ % values_.size()] = value; }
    double median() const;

   private:
    std::array<double, 3> values_ = {};
    size_t count_ = 0;
  };
  // A layer's multiplications for a token, and for each token that it sees.
  struct Layer {
    double of_token = 0, of_seen = 0;
    Recent seconds_per_product = {};

    double products(const Chunk& chunk) const {
      return of_token * static_cast<double>(chunk.tokens) + of_seen * chunk.seen;
    }
  };
  struct Watched {
    int64_t layer;  // -1: a step
    Chunk chunk;
    DeviceEvent begin, end;
  };

  double left_ = 0;  // seconds, by calls so far
  std::vector<Layer> layers_;
  Recent step_;
  std::deque<Watched> watched_;
};

}  // namespace halo
