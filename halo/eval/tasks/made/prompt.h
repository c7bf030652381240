// Prompts that fill a length: as much hay as fits, counted in the model's own tokens.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "halo/base/random.h"

namespace halo::made {

// Draws in a row from one stream: an item is a function of (seed, task, length, index).
class Draws {
 public:
  explicit Draws(const Random& random) : random_(random) {}

  int64_t below(int64_t n) { return random_.below(next_++, n); }
  std::string digits(int64_t count);                      // the first is not 0
  std::string letters(int64_t count, char first = 'a');   // of 26 from `first`
  std::string uuid();                                     // version 4
  std::vector<int64_t> sample(int64_t n, int64_t count);  // distinct numbers below n, as drawn

  template <class T>
  void shuffle(std::vector<T>& values) {
    for (auto i = static_cast<int64_t>(values.size()) - 1; i > 0; --i) {
      std::swap(values[i], values[below(i + 1)]);
    }
  }

 private:
  Random random_;
  uint64_t next_ = 0;
};

struct Prompt {
  std::string text;
  std::vector<std::string> answers;
  bool any_answer = false;  // one suffices
  int64_t tokens = 0;
};

// A prompt with so much hay: sentences, words or documents.
using Compose = std::function<Prompt(int64_t hay)>;
using CountTokens = std::function<int64_t(const std::string& text)>;

// The prompt with the most hay, from `least` to `most`, that has `room` tokens at most. One that
// does not fit with the least hay is an Error that names `what`; nothing is ever cut.
Prompt fill(const std::string& what, const Compose& compose, const CountTokens& count_tokens,
            int64_t least, int64_t most, int64_t room);

}  // namespace halo::made
