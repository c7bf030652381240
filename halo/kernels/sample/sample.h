// The next token from logits.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <vector>

namespace halo {

struct SampleArgs {
  double temperature = 0;  // 0: greedy (lowest id wins a tie)
  double top_p = 1;        // smallest set of most likely tokens with this much probability
  int64_t top_k = 0;       // 0: all
};

// logits [S, V] -> [S] int64 on the logits' device. uniforms [S] fp32 in [0, 1), one
// draw a sequence (from halo/base/random.h, so a sequence's tokens do not depend on its
// neighbours); unused when greedy.
at::Tensor sample_tokens(const at::Tensor& logits, const SampleArgs& args,
                         const at::Tensor& uniforms);

}  // namespace halo
