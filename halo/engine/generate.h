// Requests run to their end, for callers that want whole answers.
#pragma once

#include <vector>

#include "halo/engine/scheduler.h"

namespace halo {

// How a command or a recipe says what answers are to be like.
struct GenerateArgs {
  int64_t max_tokens = 128;
  SampleArgs sample;
  int64_t seed = 0;
  int64_t draft_tokens = kDraftsThatPay;

  void settings(Settings& s) {
    s("max_tokens", max_tokens, {.help = "new tokens at most", .min = 1, .max = 1e9});
    s("sample", sample, {});
    s("seed", seed, {.help = "of the sampling", .max = kMaxCount});
    s("draft_tokens", draft_tokens, {.help = kDraftTokensHelp, .min = kDraftsThatPay, .max = 16});
  }
};

struct Answer {
  std::vector<int64_t> tokens;  // new ones, without the end token
  Finish finish;
};

// Their answers, in their order. The requests' own functions are called too. An Error where one
// ended with an error.
std::vector<Answer> answer(Scheduler& scheduler, std::vector<Request> requests);

}  // namespace halo
