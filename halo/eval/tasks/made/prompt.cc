#include "halo/eval/tasks/made/prompt.h"

#include <algorithm>
#include <numeric>

#include "halo/base/check.h"

namespace halo::made {

std::string Draws::digits(int64_t count) {
  std::string text;
  for (int64_t i = 0; i < count; ++i) {
    text += static_cast<char>(i == 0 ? '1' + below(9) : '0' + below(10));
  }
  return text;
}

std::string Draws::letters(int64_t count, char first) {
  std::string text;
  for (int64_t i = 0; i < count; ++i) text += static_cast<char>(first + below(26));
  return text;
}

std::string Draws::uuid() {
  std::string text;
  for (int i = 0; i < 32; ++i) {
    if (i == 8 || i == 12 || i == 16 || i == 20) text += '-';
    const int64_t digit = i == 12 ? 4 : i == 16 ? 8 + below(4) : below(16);
    text += "0123456789abcdef"[digit];
  }
  return text;
}

std::vector<int64_t> Draws::sample(int64_t n, int64_t count) {
  HALO_CHECK(count <= n, "{} distinct numbers below {}", count, n);
  std::vector<int64_t> numbers(n);
  std::iota(numbers.begin(), numbers.end(), 0);
  for (int64_t i = 0; i < count; ++i) std::swap(numbers[i], numbers[i + below(n - i)]);
  numbers.resize(count);
  return numbers;
}

Prompt fill(const std::string& what, const Compose& compose, const CountTokens& count_tokens,
            int64_t least, int64_t most, int64_t room) {
  const auto with = [&](int64_t hay) {
    Prompt prompt = compose(hay);
    prompt.tokens = count_tokens(prompt.text);
    return prompt;
  };
  Prompt best = with(least);
  if (best.tokens > room) {
    throw_error("{}: the shortest prompt has {} tokens, of which {} fit; ask for a greater length",
                what, best.tokens, room);
  }
  // Tokens are all but linear in the hay: each guess is where the line through the last two prompts
  // has `room` tokens.
  constexpr int64_t kFirstStep = 8;
  int64_t fits = least, too_much = most + 1;
  double slope = 0;  // tokens of a unit of hay
  while (too_much - fits > 1) {
    const int64_t more =
        slope == 0 ? kFirstStep
                   : static_cast<int64_t>(static_cast<double>(room - best.tokens) / slope);
    const int64_t guess = std::clamp(fits + more, fits + 1, too_much - 1);
    Prompt prompt = with(guess);
    slope = std::max(
        0.1, static_cast<double>(prompt.tokens - best.tokens) / static_cast<double>(guess - fits));
    if (prompt.tokens <= room) {
      fits = guess;
      best = std::move(prompt);
    } else {
      too_much = guess;
    }
  }
  return best;
}

}  // namespace halo::made
