#include "halo/eval/continuations.h"

#include <algorithm>

#include "halo/engine/generate.h"

namespace halo {
namespace {

constexpr int64_t kPromptTokens = 48, kNewTokens = 64;

}  // namespace

std::vector<Opening> choose_openings(const HeldOutText& text, size_t count) {
  constexpr auto kLength = static_cast<size_t>(kPromptTokens + kNewTokens);
  std::vector<const std::vector<int64_t>*> rows;
  for (const std::vector<int64_t>& row : text.rows) {
    if (row.size() >= kLength) rows.push_back(&row);
  }
  count = std::min(count, rows.size());
  std::vector<Opening> out;
  for (size_t i = 0; i < count; ++i) {
    const std::vector<int64_t>& row = *rows[(2 * i + 1) * rows.size() / (2 * count)];
    const auto border = row.begin() + kPromptTokens;
    out.push_back({{row.begin(), border}, {border, border + kNewTokens}});
  }
  return out;
}

std::vector<std::string> continue_openings(Scheduler& scheduler,
                                           const std::vector<Opening>& openings,
                                           const std::vector<int64_t>& end_tokens,
                                           const Tokenizer& tokenizer) {
  std::vector<Request> requests;
  for (const Opening& opening : openings) {
    requests.push_back(
        {.prompt = opening.prompt, .max_tokens = kNewTokens, .stop_ids = end_tokens});
  }
  std::vector<std::string> out;
  for (const Answer& said : answer(scheduler, std::move(requests))) {
    out.push_back(tokenizer.decode(said.tokens, /*skip_special=*/true));
  }
  return out;
}

}  // namespace halo
