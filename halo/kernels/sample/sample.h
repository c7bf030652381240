// The next token from logits.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <vector>

#include "halo/base/settings.h"

namespace halo {

struct SampleArgs {
  double temperature = 0;  // 0: greedy (lowest id wins a tie)
  double top_p = 1;        // smallest set of most likely tokens with this much probability
  int64_t top_k = 0;       // 0: all

  void settings(Settings& s) {
    s("temperature", temperature,
      {.help = "0: greedy; 1: the model's own distribution", .max = 1e6});
    s("top_p", top_p, {.help = "smallest set with this much probability", .max = 1});
    s("top_k", top_k, {.help = "most likely tokens only; 0: all", .max = kMaxCount});
  }
};

// logits [S, V] -> [S] int64 on the logits' device. uniforms [S] fp32 in [0, 1), one
// draw a sequence (from halo/base/random.h, so a sequence's tokens do not depend on its
// neighbours); unused when greedy.
at::Tensor sample_tokens(const at::Tensor& logits, const SampleArgs& args,
                         const at::Tensor& uniforms);

}  // namespace halo
