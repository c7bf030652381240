// What a model says of tokens that are given: their log-probabilities, and whether it would choose
// them.
#pragma once

#include <vector>

#include "halo/engine/engine.h"

namespace halo {

// ln p of targets [K], each from hidden states [K, D], and whether it is the likeliest token. The
// sums over the vocabulary are of fp32 terms in fp64: in fp32 they read some 2e-5 a token high.
struct TokenScores {
  std::vector<double> logprob;
  std::vector<bool> best;
};
TokenScores score_tokens(const Engine& engine, const at::Tensor& hidden,
                         const std::vector<int64_t>& targets);

}  // namespace halo
