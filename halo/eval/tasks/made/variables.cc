#include "halo/eval/tasks/made/variables.h"

#include <fmt/ranges.h>

#include <algorithm>
#include <set>

#include "halo/eval/tasks/made/hay.h"

namespace halo::made {
namespace {

constexpr int64_t kVariables = 5;

// `letters` of each variable's name, `hay` sentences of noise.
Prompt chain(int64_t letters, int64_t hay, Draws& draws) {
  Prompt prompt;
  std::set<std::string> taken;
  while (static_cast<int64_t>(prompt.answers.size()) < kVariables) {
    std::string name = draws.letters(letters, 'A');
    if (taken.insert(name).second) prompt.answers.push_back(std::move(name));
  }
  const std::string value = std::to_string(10000 + draws.below(89999));
  std::vector<std::string> lines(hay, kNoise);
  std::vector<int64_t> places = draws.sample(hay, kVariables);
  std::ranges::sort(places);
  for (int64_t i = 0; i < kVariables; ++i) {
    lines.insert(lines.begin() + places[i] + i,
                 fmt::format("VAR {} = {}", prompt.answers[i],
                             i == 0 ? value : "VAR " + prompt.answers[i - 1]));
  }
  // "assgined" is RULER's.
  prompt.text = fmt::format(
      "Memorize and track the chain(s) of variable assignment hidden in the following text.\n\n"
      "{}\nQuestion: Find all variables that are assigned the value {} in the text above. Answer: "
      "According to the chain(s) of variable assignment in the text above, {} variables are "
      "assgined the value {}, they are:",
      fmt::join(lines, "\n"), value, kVariables, value);
  return prompt;
}

}  // namespace

Compose variables(const Random& random) {
  return [random](int64_t hay) {
    constexpr int64_t kExampleHay = 10;
    Draws draws(random);
    const Prompt example = chain(3, kExampleHay, draws);
    Prompt prompt = chain(5, hay, draws);
    prompt.text =
        fmt::format("{} {}\n\n{}", example.text, fmt::join(example.answers, " "), prompt.text);
    return prompt;
  };
}

}  // namespace halo::made
