// What the scheduler is asked for, and what it says on the way.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "halo/kernels/sample/sample.h"

namespace halo {

// A token and, where the request asks for them, its log-probability by the model's own distribution
// and the likeliest tokens' (kernels/sample/README.md).
struct TokenEvent {
  int64_t token = 0;
  double logprob = 0;
  std::vector<TokenLogprob> top;
};

struct Finish {
  enum class Reason {
    kStop,       // before an end token, or because on_token said so
    kLength,     // at max_tokens or the context limit
    kCancelled,  // by cancel(), or with the scheduler
    kError,      // as `error` says
  };
  Reason reason = Reason::kStop;
  std::string error;
  std::optional<int64_t> end_token;  // the one of stop_ids that came
  int64_t prompt_tokens = 0;
  int64_t cached_tokens = 0;      // of the prompt: not computed, because they had been before
  std::string cache_miss_reason;  // where cached_tokens is 0
  int64_t completion_tokens = 0;  // that were chosen, the end token among them
  double queue_seconds = 0;       // until the prompt's first chunk
  double prefill_seconds = 0;     // from then on to the first token
  double decode_seconds = 0;      // from then on to the end
};

// Of draft tokens as many as have been shown to pay: 8, and none where steps are recorded, on a GPU
// (docs/results/drafts.md).
inline constexpr int64_t kDraftsThatPay = -1;
inline constexpr const char* kDraftTokensHelp =
    "tokens that one pass checks where an answer repeats what stands before it; 0: none; -1: 8, on "
    "a GPU none";

// What one sequence is to continue, how, and who hears of it. The functions are called by the
// thread that drives the scheduler, holding no lock: they may submit and cancel. One that throws
// ends its request with that error; what on_finish throws is lost.
struct Request {
  std::vector<int64_t> prompt;        // not empty, of the vocabulary
  std::optional<int64_t> max_tokens;  // new ones; 0: the prompt is read and scored, no more; none:
                                      // up to the context limit
  int64_t context = 0;  // prompt and answer together at most; 0: the scheduler's limit
  SampleArgs sample;
  // Every token is a function of (seed, stream, its position, the logits).
  int64_t seed = 0, stream = 0;
  // Tokens that one decoder call checks where the answer repeats what stands before it (draft.h).
  // The tokens are the model's either way; in the fixed-order form they are the same bit for bit.
  int64_t draft_tokens = 0;       // or kDraftsThatPay
  std::vector<int64_t> stop_ids;  // the answer ends before the first of them
  int64_t top_logprobs = -1;  // >= 0: TokenEvents have log-probabilities, and that many of `top`
  // >= 0: on_prompt_tokens gets the same of the prompt's tokens prompt_logprobs_from ..; what
  // stands before the first of them may be reused.
  int64_t prompt_logprobs = -1;
  int64_t prompt_logprobs_from = 1;
  int64_t priority = 0;  // higher first
  uint64_t salt = 0;     // prefixes are reused only among requests with the same one
  // Which tokens may come next, asked before each is chosen, perhaps more than once: clears the
  // bits of those that may not. Bit i % 32 of word i / 32 is token i's; all [ceil(V / 32)] are set.
  std::function<void(std::span<uint32_t> allowed)> on_mask;
  // The logits [V] of the next token as the model has them.
  std::function<void(std::span<const float> logits)> on_logits;
  std::function<bool(const TokenEvent&)> on_token;  // false: this was the last
  std::function<void(std::span<const TokenEvent>)>
      on_prompt_tokens;                                      // in order, a chunk's at a time
  std::function<void(int64_t done, int64_t of)> on_prefill;  // after every chunk of the prompt
  std::function<void(const Finish&)> on_finish;  // exactly once for every submitted request
};

using RequestId = int64_t;  // never used twice

}  // namespace halo
