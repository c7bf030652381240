#include "halo/eval/tasks/made/notes.h"

#include <fmt/ranges.h>

#include <algorithm>
#include <array>
#include <cmath>

#include "halo/data/needle.h"
#include "halo/eval/tasks/made/hay.h"

namespace halo::made {
namespace {

constexpr auto kOrdinals = std::to_array<std::string_view>(
    {"first", "second", "third", "fourth", "fifth", "sixth", "seventh", "eighth"});

}  // namespace

Compose notes(int64_t alike, const Random& random) {
  return [alike, random](int64_t hay) {
    constexpr int64_t kWords = 6;
    const std::vector<std::string> words = NeedleWriter::keys(NeedlePool::kReport);
    const auto vocabulary = static_cast<int64_t>(words.size());
    Draws draws(random);
    const int64_t thing = draws.below(vocabulary), asked = draws.below(alike);
    const auto content = [&] {
      std::vector<std::string> chosen;
      for (const int64_t w : draws.sample(vocabulary, kWords)) chosen.push_back(words[w]);
      return fmt::format("{}", fmt::join(chosen, " "));
    };
    std::vector<std::string> same;
    for (int64_t i = 0; i < alike; ++i) same.push_back(content());
    // Which of all notes are about the thing.
    std::vector<int64_t> places = draws.sample(hay + alike, alike);
    std::ranges::sort(places);
    std::string text;
    size_t next = 0;
    for (int64_t i = 0; i < hay + alike; ++i) {
      if (next < same.size() && places[next] == i) {
        text += fmt::format("Note about the {}: {}.\n", words[thing], same[next++]);
        continue;
      }
      const int64_t other = draws.below(vocabulary - 1);
      text += fmt::format("Note about the {}: {}.\n", words[other + (other >= thing ? 1 : 0)],
                          content());
    }
    return Prompt{
        fmt::format(
            "Below are notes.\n{}Question: What does the {} note about the {} say, word for "
            "word? Answer: The {} note about the {} says:",
            text, kOrdinals[asked], words[thing], kOrdinals[asked], words[thing]),
        {same[asked]}};
  };
}

Compose passkey(double depth, const Random& random) {
  return [depth, random](int64_t hay) {
    Draws draws(random);
    const std::string key = draws.digits(5);
    std::vector<std::string> lines(hay, kNoise);
    lines.insert(lines.begin() + std::lround(depth * static_cast<double>(hay)),
                 fmt::format("The pass key is {}. Remember it. {} is the pass key.", key, key));
    return Prompt{fmt::format("There is a pass key hidden in a lot of text that does not matter. "
                              "Find it and remember it.\n{}\nWhat is the pass key? The pass key is",
                              fmt::join(lines, "\n")),
                  {key}};
  };
}

}  // namespace halo::made
