// Added tokens (<|endoftext|> and the like) found in text before it is cut into pieces.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace halo {

class AddedTokenMatcher {
 public:
  // Its text is not empty.
  struct Token {
    std::string text;
    int32_t id;
    bool single_word = false;             // not beside a letter, digit or underscore
    bool lstrip = false, rstrip = false;  // takes the spaces before, after it
  };
  AddedTokenMatcher() = default;
  explicit AddedTokenMatcher(std::vector<Token> tokens);

  // Calls on_text(begin, stretch) for the text between added tokens, never empty, and on_token(id).
  // Tokens are found leftmost first, of several that begin there the longest; one that is no single
  // word is passed over.
  template <class OnText, class OnToken>
  void split(std::string_view text, const OnText& on_text, const OnToken& on_token) const {
    size_t done = 0;
    auto match = find(text, 0, 0);
    while (match) {
      if (match->begin > done) on_text(done, text.substr(done, match->begin - done));
      on_token(match->id);
      done = match->end;
      // Behind the token, not behind the spaces it takes: these may hold another.
      match = find(text, match->search_from, done);
    }
    if (done < text.size()) on_text(done, text.substr(done));
  }

 private:
  struct Match {
    size_t begin, end, search_from;
    int32_t id;
  };
  // The first from text[from] on; spaces before text[done] are no longer there to take.
  std::optional<Match> find(std::string_view text, size_t from, size_t done) const;
  const Token* longest_at(std::string_view text, size_t at) const;

  std::vector<Token> tokens_;            // sorted by text
  std::array<bool, 256> first_bytes_{};  // of tokens
  std::optional<char> only_first_byte_;  // if they all begin so
};

}  // namespace halo
