// How long a model takes for one more token, by how many are before it.
#pragma once

#include <vector>

#include "halo/base/json.h"
#include "halo/engine/engine.h"

namespace halo {

struct DecodeTime {
  int64_t length = 0;  // tokens before the last one timed
  double seconds = 0;  // a token, the median
  int64_t n = 0;       // tokens timed
};

// One sequence that grows to each of `lengths` in turn, by `text` over and over, and is timed at
// the end of each; so it costs about one pass over the longest. A length too short to be timed, or
// too near the one before, is left out. Wall-clock times of this machine as busy as it is.
std::vector<DecodeTime> time_decoding(Engine& engine, const std::vector<int64_t>& text,
                                      std::vector<int64_t> lengths);

// {LENGTH: {"seconds", "n"}}
json::object decode_times_to_json(const std::vector<DecodeTime>& times);

}  // namespace halo
