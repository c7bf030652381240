// Beginnings of held-out text, and how a model goes on from them: for people to read.
#pragma once

#include <string>
#include <vector>

#include "halo/engine/scheduler.h"
#include "halo/eval/held_out.h"
#include "halo/tokenizer/tokenizer.h"

namespace halo {

struct Opening {
  std::vector<int64_t> prompt, rest;  // rest: how the text itself goes on, as long as a model may
};

// `count` openings, or fewer where the text has no more rows that are long enough, from rows evenly
// spread over it.
std::vector<Opening> choose_openings(const HeldOutText& text, size_t count);

// What the model says after each of them, always taking the likeliest token, up to one of
// `end_tokens`; without the text of special tokens.
std::vector<std::string> continue_openings(Scheduler& scheduler,
                                           const std::vector<Opening>& openings,
                                           const std::vector<int64_t>& end_tokens,
                                           const Tokenizer& tokenizer);

}  // namespace halo
