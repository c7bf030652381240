#include "halo/eval/tasks/made/needles.h"

#include <fmt/ranges.h>

#include <algorithm>

#include "halo/data/needle.h"
#include "halo/eval/tasks/made/hay.h"

namespace halo::made {
namespace {

std::string draw(Word word, int64_t digits, Draws& draws) {
  static const std::vector<std::string> words = NeedleWriter::keys(NeedlePool::kReport);
  const auto count = static_cast<int64_t>(words.size());
  switch (word) {
    case Word::kWords: {
      const std::vector<int64_t> pair = draws.sample(count, 2);
      return words[pair[0]] + "-" + words[pair[1]];
    }
    case Word::kNumbers:
      return draws.digits(digits);
    case Word::kUuids:
      break;
  }
  return draws.uuid();
}

std::string sentence(const std::string& kind, const std::string& key, const std::string& value) {
  return fmt::format("One of the special magic {} for {} is: {}.", kind, key, value);
}

// A key that is none of `taken`.
std::string draw_key(const NeedleKind& kind, const std::vector<std::string>& taken, Draws& draws) {
  std::string key;
  do {
    key = draw(kind.key, kind.digits, draws);
  } while (std::ranges::find(taken, key) != taken.end());
  return key;
}

// Needles as hay: keys that nobody asks for, with as many values as the others have.
std::vector<std::string> other_needles(const NeedleKind& kind, const std::string& values_name,
                                       const std::vector<std::string>& keys, int64_t count,
                                       Draws& draws) {
  std::vector<std::string> lines;
  std::string key;
  for (int64_t i = 0; i < count; ++i) {
    if (i % kind.values == 0) key = draw_key(kind, keys, draws);
    lines.push_back(sentence(values_name, key, draw(kind.value, kind.digits, draws)));
  }
  if (kind.values > 1) draws.shuffle(lines);
  return lines;
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
      keys.push_back(draw_key(kind, keys, draws));
      std::vector<std::string>& own = values.emplace_back();
      for (int64_t v = 0; v < kind.values; ++v) {
        own.push_back(draw(kind.value, kind.digits, draws));
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
      std::vector<std::string> lines(hay, kNoise);
      if (kind.hay == Hay::kNeedles) lines = other_needles(kind, values_name, keys, hay, draws);
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
