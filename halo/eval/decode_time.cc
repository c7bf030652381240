#include "halo/eval/decode_time.h"

#include <algorithm>
#include <chrono>
#include <string>

#include "ATen/ATen.h"
#include "halo/base/check.h"
#include "halo/base/median.h"

namespace halo {
namespace {

// The first steps are slower: memory is taken, and on a GPU the step is recorded.
constexpr int64_t kWarmUp = 3, kTimed = 15;

double seconds_of_step(Engine& engine, int64_t sequence, int64_t token) {
  const auto start = std::chrono::steady_clock::now();
  const at::Tensor logits = engine.advance({sequence}, {{token}});
  logits[0][0].item<float>();  // waits for the device
  const std::chrono::duration<double> time = std::chrono::steady_clock::now() - start;
  return time.count();
}

}  // namespace

std::vector<DecodeTime> time_decoding(Engine& engine, const std::vector<int64_t>& text,
                                      std::vector<int64_t> lengths) {
  HALO_CHECK(!text.empty(), "time_decoding: no text");
  at::NoGradGuard no_grad;
  std::ranges::sort(lengths);
  const OwnedSequence sequence(engine);
  const auto token = [&](int64_t position) {
    return text[static_cast<size_t>(position) % text.size()];
  };
  std::vector<DecodeTime> out;
  for (const int64_t length : lengths) {
    const int64_t before = engine.length(sequence.id()), start = length - kWarmUp - kTimed;
    if (start <= before) continue;
    std::vector<int64_t> more;
    for (int64_t position = before; position < start; ++position) more.push_back(token(position));
    engine.extend({sequence.id()}, {more}, Engine::Rows::kLast);
    std::vector<double> seconds;
    for (int64_t position = start; position < length; ++position) {
      const double time = seconds_of_step(engine, sequence.id(), token(position));
      if (position >= start + kWarmUp) seconds.push_back(time);
    }
    out.push_back({length, median(std::move(seconds)), kTimed});
  }
  return out;
}

json::object decode_times_to_json(const std::vector<DecodeTime>& times) {
  json::object out;
  for (const DecodeTime& time : times) {
    out[std::to_string(time.length)] = {{"seconds", time.seconds}, {"n", time.n}};
  }
  return out;
}

}  // namespace halo
