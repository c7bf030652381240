#include "halo/eval/tasks/made/words.h"

#include <fmt/ranges.h>

#include <algorithm>
#include <numbers>
#include <set>

namespace halo::made {
namespace {

constexpr int64_t kCommon = 10;

std::string numbered(const std::vector<std::string>& words) {
  std::string text;
  for (size_t i = 0; i < words.size(); ++i) {
    text += fmt::format("{}{}. {}", i == 0 ? "" : " ", i + 1, words[i]);
  }
  return text;
}

Prompt word_list(const std::vector<std::string>& vocabulary, int64_t others, int64_t common_times,
                 int64_t other_times, Draws& draws) {
  Prompt prompt;
  std::vector<std::string> list;
  int64_t drawn = 0;
  for (const int64_t w : draws.sample(static_cast<int64_t>(vocabulary.size()), kCommon + others)) {
    const bool common = drawn++ < kCommon;
    if (common) prompt.answers.push_back(vocabulary[w]);
    list.insert(list.end(), common ? common_times : other_times, vocabulary[w]);
  }
  draws.shuffle(list);
  prompt.text = fmt::format(
      "Below is a numbered list of words. In these words, some appear more often than others. "
      "Memorize the ones that appear most often.\n{}\nQuestion: What are the 10 most common words "
      "in the above list? Answer: The top 10 words that appear most often in the list are:",
      numbered(list));
  return prompt;
}

}  // namespace

Compose common_words(const std::vector<std::string>& vocabulary, int64_t length,
                     const Random& random) {
  return [&vocabulary, length, random](int64_t hay) {
    Draws draws(random);
    const bool small = length < 4096;
    const Prompt example =
        small ? word_list(vocabulary, 10, 3, 1, draws) : word_list(vocabulary, 30, 10, 3, draws);
    Prompt prompt =
        small ? word_list(vocabulary, hay, 6, 1, draws) : word_list(vocabulary, hay, 30, 3, draws);
    prompt.text = fmt::format("{} {}\n{}", example.text, numbered(example.answers), prompt.text);
    return prompt;
  };
}

Compose frequent_words(int64_t length, const Random& random) {
  return [length, random](int64_t hay) {
    constexpr double kZeta = std::numbers::pi * std::numbers::pi / 6;  // zeta(2)
    Draws draws(random);
    std::vector<std::string> vocabulary = {"..."};
    std::set<std::string> taken;
    // More words than are drawn once are never seen.
    const int64_t size = std::max<int64_t>(4, length / 50);
    while (static_cast<int64_t>(vocabulary.size()) < size) {
      std::string word = draws.letters(6);
      if (taken.insert(word).second) vocabulary.push_back(std::move(word));
    }
    std::vector<std::string> text;
    for (int64_t k = 1; k <= size; ++k) {
      const double times = static_cast<double>(hay) / static_cast<double>(k * k) / kZeta;
      text.insert(text.end(), static_cast<size_t>(times), vocabulary[k - 1]);
    }
    draws.shuffle(text);
    Prompt prompt;
    prompt.answers = {vocabulary.begin() + 1, vocabulary.begin() + 4};
    prompt.text = fmt::format(
        "Read the following coded text and track the frequency of each coded word. Find the three "
        "most frequently appeared coded words. {}\nQuestion: Do not provide any explanation. "
        "Please "
        "ignore the dots '....'. What are the three most frequently appeared words in the above "
        "coded text? Answer: According to the coded text above, the three most frequently appeared "
        "words are:",
        fmt::join(text, " "));
    return prompt;
  };
}

}  // namespace halo::made
