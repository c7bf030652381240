// The next token from logits (README.md), and how probable it was.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <span>
#include <unordered_map>
#include <utility>
#include <vector>

#include "halo/base/settings.h"

namespace halo {

struct SampleArgs {
  double temperature = 0;  // 0: greedy (lowest id wins a tie)
  double top_p = 1;        // smallest set of most likely tokens with this much probability
  int64_t top_k = 0;       // 0: all
  double min_p = 0;        // times the most likely token's probability: what a token has at least
  // Of tokens that were there before: in the prompt or the answer; in the answer, once; in the
  // answer, for every time.
  double repetition_penalty = 1, presence_penalty = 0, frequency_penalty = 0;
  std::vector<std::pair<int64_t, double>> logit_bias;  // of tokens, each once; not an option

  // Whether the tokens that were there before change the next one.
  bool needs_counts() const {
    return repetition_penalty != 1 || presence_penalty != 0 || frequency_penalty != 0;
  }
  void settings(Settings& s) {
    s("temperature", temperature,
      {.help = "0: greedy; 1: the model's own distribution", .max = 1e6});
    s("top_p", top_p, {.help = "smallest set with this much probability", .max = 1});
    s("top_k", top_k, {.help = "most likely tokens only; 0: all", .max = kMaxCount});
    s("min_p", min_p,
      {.help = "least probability of a token, as a share of the most likely one's", .max = 1});
    s("repetition_penalty", repetition_penalty,
      {.help = "divides positive logits of tokens that were there, multiplies negative ones",
       .min = 1e-3,
       .max = 1e3});
    s("presence_penalty", presence_penalty,
      {.help = "taken from the logit of every token of the answer", .min = -100, .max = 100});
    s("frequency_penalty", frequency_penalty,
      {.help = "the same for every time that it is there", .min = -100, .max = 100});
  }
};

// An Error where a number is outside its range, or a bias is of no token of the vocabulary.
void check_sample_args(const SampleArgs& args, int64_t vocabulary);

// How often a token was there before.
struct TokenCount {
  bool in_prompt = false;
  int64_t in_answer = 0;
};
using TokenCounts = std::unordered_map<int64_t, TokenCount>;

// What the token of one row of logits depends on beside them.
struct SampleRow {
  const SampleArgs* args;
  float uniform = 0;                    // a draw from [0, 1) of the row's own; unused when greedy
  const TokenCounts* counts = nullptr;  // where args->needs_counts()
};

// logits [S, V] -> [S] int64 on the logits' device. A row's token depends on no other row.
at::Tensor sample_tokens(const at::Tensor& logits, std::span<const SampleRow> rows);

// Words of 32 tokens that a mask of the vocabulary has.
constexpr int64_t mask_words(int64_t vocabulary) {
  return (vocabulary + 31) / 32;
}
// The logits [S, V] with minus infinity in `rows` where a token's bit, the lowest of a word first,
// is not set: allowed [rows.size(), mask_words(V)] int32, on the host.
at::Tensor mask_logits(const at::Tensor& logits, std::span<const int64_t> rows,
                       const at::Tensor& allowed);

struct TokenLogprob {
  int64_t token;
  double logprob;  // natural logarithm
};
struct TokenLogprobs {
  std::vector<double> chosen;                  // [S]
  std::vector<std::vector<TokenLogprob>> top;  // [S, count] falling; equal ones by id
};
// Of tokens [S] and of the `count` likeliest (all, where there are fewer) by the model's own
// distribution: logits [S, V] before penalties, bias and temperature. Sums are in fp64.
TokenLogprobs token_logprobs(const at::Tensor& logits, std::span<const int64_t> tokens,
                             int64_t count);

}  // namespace halo
