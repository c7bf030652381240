// Greedy and sampled continuation of prompts, many at a time.
#pragma once

#include <functional>
#include <vector>

#include "halo/engine/engine.h"
#include "halo/kernels/sample/sample.h"

namespace halo {

struct GenerateArgs {
  int64_t max_tokens = 128;  // new tokens a prompt
  SampleArgs sample;
  std::vector<int64_t> stop_ids;  // generation ends after one of these, which is kept
  // Prompt i draws from the stream Random(seed, "sample", first_stream + i) at the position of the
  // token drawn: neither its neighbours nor max_running change its tokens.
  int64_t seed = 0;
  int64_t first_stream = 0;
  int64_t max_running = 256;  // prompts in one decoder call; as one ends the next one starts
  // Asked of every prompt that ran, after `on_step`; true ends it.
  std::function<bool(size_t prompt)> ended;

  // What a command or a request may say.
  void settings(Settings& s) {
    s("max_tokens", max_tokens, {.help = "new tokens at most", .min = 1, .max = 1e9});
    s("sample", sample, {});
    s("seed", seed, {.help = "of the sampling", .max = kMaxCount});
  }
};

// What one decoder call gave.
struct GenerateStep {
  std::vector<size_t> prompts;  // [S] which of the prompts ran
  std::vector<int64_t> tokens;  // [S] the token each of them got
  at::Tensor logits;            // [S, V] fp32, what they were chosen from; the next call's in turn
};

// The new tokens of every prompt (none of them empty). `on_step` sees every call's.
std::vector<std::vector<int64_t>> generate(
    Engine& engine, const std::vector<std::vector<int64_t>>& prompts, const GenerateArgs& args,
    const std::function<void(const GenerateStep&)>& on_step = {});

}  // namespace halo
