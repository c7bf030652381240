#include "halo/tokenizer/added_tokens.h"

#include <algorithm>
#include <utility>

#include "halo/base/utf8.h"
#include "halo/tokenizer/unicode.h"

namespace halo {
namespace {

bool is_within_word(std::string_view text, size_t begin, size_t end) {
  return (begin > 0 && is_word(code_at(text, code_before(text, begin)).code)) ||
         (end < text.size() && is_word(code_at(text, end).code));
}

// Where the spaces begin that end at `end`, not before `from`.
size_t spaces_before(std::string_view text, size_t end, size_t from) {
  while (end > from) {
    const size_t last = code_before(text, end);
    if (!is_space(code_at(text, last).code)) break;
    end = last;
  }
  return end;
}

size_t spaces_after(std::string_view text, size_t begin) {
  while (begin < text.size()) {
    const CodeAt c = code_at(text, begin);
    if (!is_space(c.code)) break;
    begin = c.end;
  }
  return begin;
}

}  // namespace

AddedTokenMatcher::AddedTokenMatcher(std::vector<Token> tokens) : tokens_(std::move(tokens)) {
  std::ranges::stable_sort(tokens_, {}, &Token::text);
  for (const Token& token : tokens_) first_bytes_[static_cast<uint8_t>(token.text.front())] = true;
  if (std::ranges::count(first_bytes_, true) == 1) only_first_byte_ = tokens_.front().text.front();
}

const AddedTokenMatcher::Token* AddedTokenMatcher::longest_at(std::string_view text,
                                                              size_t at) const {
  const Token* longest = nullptr;
  // [first, last): the tokens that agree with the text on `size` bytes; the shortest comes first.
  auto first = tokens_.begin(), last = tokens_.end();
  for (size_t size = 0;; ++size) {
    while (first != last && first->text.size() == size) longest = &*first++;
    if (first == last || at + size == text.size()) return longest;
    const auto byte = static_cast<uint8_t>(text[at + size]);
    const auto byte_of = [size](const Token& t) { return static_cast<uint8_t>(t.text[size]); };
    first = std::partition_point(first, last, [&](const Token& t) { return byte_of(t) < byte; });
    last = std::partition_point(first, last, [&](const Token& t) { return byte_of(t) == byte; });
  }
}

std::optional<AddedTokenMatcher::Match> AddedTokenMatcher::find(std::string_view text, size_t from,
                                                                size_t done) const {
  for (size_t at = from;; ++at) {
    if (only_first_byte_) {
      at = std::min(text.find(*only_first_byte_, at), text.size());
    } else {
      while (at < text.size() && !first_bytes_[static_cast<uint8_t>(text[at])]) ++at;
    }
    if (at >= text.size()) return std::nullopt;
    const Token* token = longest_at(text, at);
    if (!token) continue;
    const size_t end = at + token->text.size();
    if (token->single_word && is_within_word(text, at, end)) {
      at = end - 1;
      continue;
    }
    return Match{.begin = token->lstrip ? spaces_before(text, at, done) : at,
                 .end = token->rstrip ? spaces_after(text, end) : end,
                 .search_from = end,
                 .id = token->id};
  }
}

}  // namespace halo
