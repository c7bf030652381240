#include "halo/eval/tasks/made/needles.h"

#include <fmt/ranges.h>

#include <algorithm>

#include "halo/data/needle.h"
#include "halo/eval/tasks/made/hay.h"

namespace halo::made {
namespace {

std::string draw(Word word, Draws& draws) {
  static const std::vector<std::string> words = NeedleWriter::keys(NeedlePool::kReport);
  const auto count = static_cast<int64_t>(words.size());
  switch (word) {
    case Word::kWords: {
      const std::vector<int64_t> pair = draws.sample(count, 2);
      return words[pair[0]] + "-" + words[pair[1]];
    }
    case Word::kNumbers:
      return draws.digits(7);
    case Word::kUuids:
      break;
  }
  return draws.uuid();
}

std::string sentence(const std::string& kind, const std::string& key, const std::string& value) {
  return fmt::format("One of the special magic {} for {} is: {}.", kind, key, value);
}

// The needles at distinct places among lines.
std::string hide_in_lines(std::vector<std::string> lines, const std::vector<std::string>& needles,
                          Draws& draws) {
  std::vector<int64_t> places =
      draws.sample(static_cast<int64_t>(lines.size()), static_cast<int64_t>(needles.size()));
  std::ranges::sort(places, std::greater<>());
  for (size_t i = 0; i < needles.size(); ++i) lines.insert(lines.begin() + places[i], needles[i]);
  return fmt::format("{}", fmt::join(lines, "\n"));
}

// "a", "a, and b", "a, b, and c"
std::string enumerate(const std::vector<std::string>& words) {
  if (words.size() == 1) return words[0];
  return fmt::format("{}, and {}", fmt::join(words.begin(), words.end() - 1, ", "), words.back());
}

}  // namespace

Compose needles(const NeedleKind& kind, const std::vector<std::string>& essays,
                const Random& random) {
  return [kind, &essays, random](int64_t hay) {
    Draws draws(random);
    const std::string values_name = kind.value == Word::kNumbers ? "numbers" : "uuids";
    std::vector<std::string> keys, sentences;
    std::vector<std::vector<std::string>> values;
    for (int64_t k = 0; k < kind.keys; ++k) {
      keys.push_back(draw(kind.key, draws));
      std::vector<std::string>& own = values.emplace_back();
      for (int64_t v = 0; v < kind.values; ++v) {
        own.push_back(draw(kind.value, draws));
        sentences.push_back(sentence(values_name, keys.back(), own.back()));
      }
    }
    Prompt prompt;
    std::vector<std::string> asked;
    for (const int64_t k : draws.sample(kind.keys, kind.queries)) {
      asked.push_back(keys[k]);
      prompt.answers.insert(prompt.answers.end(), values[k].begin(), values[k].end());
    }
    draws.shuffle(sentences);

    std::string context;
    if (kind.hay == Hay::kEssays) {
      context = hide_in_essays(essays, hay, sentences, draws);
    } else {
      std::vector<std::string> lines;
      for (int64_t i = 0; i < hay; ++i) {
        lines.push_back(kind.hay == Hay::kNoise ? kNoise
                                                : sentence(values_name, draw(kind.key, draws),
                                                           draw(kind.value, draws)));
      }
      context = hide_in_lines(std::move(lines), sentences, draws);
    }
    const bool one = prompt.answers.size() == 1;
    const std::string name = one ? values_name.substr(0, values_name.size() - 1) : values_name;
    const std::string query = enumerate(asked);
    prompt.text = fmt::format(
        "{} special magic {} {} hidden within the following text. Make sure to memorize it. I will "
        "quiz you about the {} afterwards.\n{}\nWhat {} special magic {} for {} mentioned in the "
        "provided text? The special magic {} for {} mentioned in the provided text {}",
        one ? "A" : "Some", name, one ? "is" : "are", name, context, one ? "is the" : "are all the",
        name, query, name, query, one ? "is" : "are");
    return prompt;
  };
}

}  // namespace halo::made
