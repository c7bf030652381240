#include "halo/server/answer_decoder.h"

#include <algorithm>

namespace halo {

int64_t count_characters(std::string_view text) {
  return std::ranges::count_if(text,
                               [](char c) { return (static_cast<uint8_t>(c) & 0xC0) != 0x80; });
}

AnswerDecoder::AnswerDecoder(const Tokenizer& tokenizer, const AnswerForm& form,
                             const Generation& generation, std::span<const int64_t> before)
    : tokenizer_(tokenizer),
      skip_special_(generation.skip_special_tokens),
      decoder_(tokenizer, false),
      stop_(generation.stop),
      parser_(form) {
  std::vector<std::string_view> shown = tool_markers(form.tools);
  if (form.has_reasoning) shown.insert(shown.end(), {"<think>", "</think>"});
  for (const std::string_view token : shown) {
    if (const auto id = tokenizer.token_id(token)) shown_.push_back(*id);
  }
  // A decoder may treat what begins a text differently; characters do not reach farther back.
  constexpr size_t kEnough = 8;
  for (const int64_t id : before.last(std::min(before.size(), kEnough))) {
    if (!tokenizer.is_special(id)) decoder_.push(id);
  }
}

std::vector<Piece> AnswerDecoder::take(const std::string& text) {
  decoded_ += count_characters(text);
  const std::string certain = stop_.push(text);
  certain_ += count_characters(certain);
  return parser_.push(certain);
}

std::vector<Piece> AnswerDecoder::push(int64_t id) {
  if (skip_special_ && tokenizer_.is_special(id) && std::ranges::count(shown_, id) == 0) return {};
  return take(decoder_.push(id));
}

std::vector<Piece> AnswerDecoder::finish() {
  std::vector<Piece> out = take(decoder_.finish());
  const std::string held = stop_.finish();
  certain_ += count_characters(held);
  std::vector<Piece> rest = parser_.push(held);
  std::vector<Piece> last = parser_.finish();
  out.insert(out.end(), rest.begin(), rest.end());
  out.insert(out.end(), last.begin(), last.end());
  return out;
}

}  // namespace halo
