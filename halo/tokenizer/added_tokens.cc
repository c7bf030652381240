#include "halo/tokenizer/added_tokens.h"

#include <algorithm>

namespace halo {

AddedTokenMatcher::AddedTokenMatcher(std::vector<std::pair<std::string, int32_t>> tokens)
    : tokens_(std::move(tokens)) {
  std::sort(tokens_.begin(), tokens_.end());
  for (const auto& [text, id] : tokens_) {
    if (first_bytes_.empty() || first_bytes_.back() != text.front()) first_bytes_ += text.front();
  }
}

std::optional<AddedTokenMatcher::Match> AddedTokenMatcher::find(std::string_view text,
                                                                size_t from) const {
  while ((from = text.find_first_of(first_bytes_, from)) != text.npos) {
    std::optional<Match> longest;
    // [first, last): the tokens that agree with the text on `size` bytes; the shortest comes first.
    auto first = tokens_.begin(), last = tokens_.end();
    for (size_t size = 0; first != last; ++size) {
      if (first->first.size() == size) {
        longest = Match{from, from + size, first->second};
        ++first;
      }
      if (from + size == text.size()) break;
      const auto byte = static_cast<unsigned char>(text[from + size]);
      const auto byte_of = [size](const auto& token) {
        return static_cast<unsigned char>(token.first[size]);
      };
      first = std::partition_point(first, last, [&](const auto& t) { return byte_of(t) < byte; });
      last = std::partition_point(first, last, [&](const auto& t) { return byte_of(t) == byte; });
    }
    if (longest) return longest;
    ++from;
  }
  return std::nullopt;
}

}  // namespace halo
