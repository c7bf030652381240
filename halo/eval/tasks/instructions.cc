#include "halo/eval/tasks/instructions.h"

#include <fmt/ranges.h>

#include <algorithm>
#include <array>

#include "halo/base/check.h"
#include "halo/eval/tasks/text.h"

namespace halo {
namespace {

using made::Draws;

constexpr auto kThings =
    std::to_array<std::string_view>({"a lighthouse",       "the first snow of the year",
                                     "learning to swim",   "a village bakery",
                                     "the work of a bee",  "an old bicycle",
                                     "how bread is made",  "a long train journey",
                                     "the night sky",      "a walk along a river",
                                     "growing tomatoes",   "a lost umbrella",
                                     "a day at a harbour", "why leaves change colour",
                                     "playing chess",      "a storm at sea",
                                     "a public library",   "how a clock works",
                                     "moving to a city",   "a mountain hut",
                                     "cooking for guests", "the use of a map",
                                     "a visit to a farm",  "keeping a diary"});
constexpr auto kForms = std::to_array<std::string_view>(
    {"Write a short text about", "Explain to a child what is worth knowing about",
     "Tell a small story about", "Say what you think about"});
constexpr auto kWords = std::to_array<std::string_view>(
    {"river", "window", "morning", "garden", "letter", "silver", "winter", "music"});
constexpr auto kEndings =
    std::to_array<std::string_view>({"That is all I know.", "Thank you for reading.",
                                     "The rest is another story.", "And so it goes on."});

template <class List>
std::string pick(const List& list, Draws& draws) {
  return std::string(list[draws.below(static_cast<int64_t>(list.size()))]);
}

bool is_letter(char c, char first, char last) {
  return c >= first && c <= last;
}
bool has_small(std::string_view text) {
  return std::ranges::any_of(text, [](char c) { return is_letter(c, 'a', 'z'); });
}
bool has_capital(std::string_view text) {
  return std::ranges::any_of(text, [](char c) { return is_letter(c, 'A', 'Z'); });
}

// Those that are not blank, without white space at their ends.
std::vector<std::string_view> lines_of(std::string_view text) {
  std::vector<std::string_view> lines;
  for (size_t begin = 0; begin <= text.size();) {
    const size_t end = std::min(text.find('\n', begin), text.size());
    const std::string_view line = stripped(text.substr(begin, end - begin));
    if (!line.empty()) lines.push_back(line);
    begin = end + 1;
  }
  return lines;
}

// Texts between blank lines.
int64_t num_paragraphs(std::string_view text) {
  int64_t count = 0;
  bool open = false;
  for (size_t begin = 0; begin <= text.size();) {
    const size_t end = std::min(text.find('\n', begin), text.size());
    const bool blank = stripped(text.substr(begin, end - begin)).empty();
    if (!blank && !open) ++count;
    open = !blank;
    begin = end + 1;
  }
  return count;
}

// Words that end in a full stop, a question or an exclamation mark, quotes behind it or not.
int64_t num_sentences(std::string_view text) {
  int64_t count = 0;
  for (std::string word : words_of(text)) {
    while (!word.empty() && (word.back() == '"' || word.back() == ')')) word.pop_back();
    if (!word.empty() && std::string_view(".?!").find(word.back()) != std::string_view::npos)
      ++count;
  }
  return count;
}

// How often a word stands by itself, whatever the case.
int64_t count_word(std::string_view text, const std::string& word) {
  int64_t count = 0;
  std::string run;
  for (const char c : lower(text) + " ") {
    if (is_letter(c, 'a', 'z')) {
      run += c;
      continue;
    }
    if (run == word) ++count;
    run.clear();
  }
  return count;
}

Constraint form(std::string_view kind, Draws& draws) {
  const int64_t n = 2 + draws.below(4);
  if (kind == "bullets") {
    return {"bullets", fmt::format("Answer with exactly {} lines, each beginning with \"- \".", n),
            [n](std::string_view text) {
              const auto lines = lines_of(text);
              return std::ssize(lines) == n && std::ranges::all_of(lines, [](const auto& line) {
                       return line.starts_with("- ");
                     });
            }};
  }
  if (kind == "numbered") {
    return {"numbered", fmt::format("Answer with exactly {} lines, numbered 1., 2. and so on.", n),
            [n](std::string_view text) {
              const auto lines = lines_of(text);
              bool all = std::ssize(lines) == n;
              for (size_t i = 0; i < lines.size(); ++i) {
                all = all && lines[i].starts_with(fmt::format("{}. ", i + 1));
              }
              return all;
            }};
  }
  if (kind == "paragraphs") {
    return {"paragraphs",
            fmt::format("Answer in exactly {} paragraphs with a blank line between them.", n),
            [n](std::string_view text) { return num_paragraphs(text) == n; }};
  }
  return {"sentences", fmt::format("Answer in exactly {} sentences.", n),
          [n](std::string_view text) { return num_sentences(text) == n; }};
}

Constraint length(std::string_view kind, Draws& draws) {
  const int64_t n = 10 * (3 + draws.below(4));
  const auto words = [](std::string_view text) { return std::ssize(words_of(text)); };
  if (kind == "at_most") {
    return {"at_most", fmt::format("Use at most {} words.", n),
            [=](std::string_view text) { return words(text) <= n; }};
  }
  return {"at_least", fmt::format("Use at least {} words.", n),
          [=](std::string_view text) { return words(text) >= n; }};
}

Constraint content(std::string_view kind, Draws& draws) {
  const std::string word = pick(kWords, draws);
  if (kind == "word") {
    const int64_t n = 1 + draws.below(3);
    return {"word",
            fmt::format("Use the word \"{}\" at least {}.", word,
                        n == 1 ? "once" : fmt::format("{} times", n)),
            [=](std::string_view text) { return count_word(text, word) >= n; }};
  }
  if (kind == "no_commas") {
    return {"no_commas", "Use no commas.",
            [](std::string_view text) { return text.find(',') == std::string_view::npos; }};
  }
  const std::string without = draws.below(2) == 0 ? "and" : "very";
  return {"without", fmt::format("Never use the word \"{}\".", without),
          [=](std::string_view text) { return count_word(text, without) == 0; }};
}

Constraint ending(std::string_view kind, Draws& draws) {
  if (kind == "question") {
    return {"question", "End with a question mark.",
            [](std::string_view text) { return text.ends_with('?'); }};
  }
  const std::string words = pick(kEndings, draws);
  return {"ending", fmt::format("End with the words \"{}\"", words),
          [=](std::string_view text) { return lower(text).ends_with(lower(words)); }};
}

Constraint letters(std::string_view kind) {
  if (kind == "small") {
    return {"small", "Use small letters only, no capital ones.",
            [](std::string_view text) { return has_small(text) && !has_capital(text); }};
  }
  return {"capitals", "Use capital letters only, no small ones.",
          [](std::string_view text) { return has_capital(text) && !has_small(text); }};
}

}  // namespace

const std::vector<std::vector<std::string>>& constraint_groups() {
  static const std::vector<std::vector<std::string>> groups = {
      {"bullets", "numbered", "paragraphs", "sentences"},
      {"at_most", "at_least"},
      {"word", "no_commas", "without"},
      {"question", "ending"},
      {"small", "capitals"}};
  return groups;
}

Constraint draw_constraint(std::string_view kind, Draws& draws) {
  const auto& groups = constraint_groups();
  const auto in = [&](size_t group) {
    return std::ranges::find(groups[group], kind) != groups[group].end();
  };
  if (in(0)) return form(kind, draws);
  if (in(1)) return length(kind, draws);
  if (in(2)) return content(kind, draws);
  if (in(3)) return ending(kind, draws);
  HALO_CHECK(in(4), "there is no constraint '{}'", kind);
  return letters(kind);
}

std::vector<TaskItem> instruction_items(
    int64_t count, uint64_t seed, const std::function<std::string(const std::string&)>& as_chat) {
  constexpr int64_t kMaxTokens = 256;
  const auto& groups = constraint_groups();
  std::vector<TaskItem> items;
  for (int64_t i = 0; i < count; ++i) {
    Draws draws(Random(seed, "instructions", i));
    std::string text = fmt::format("{} {}.", pick(kForms, draws), pick(kThings, draws));
    std::vector<Constraint> constraints;
    for (const int64_t g : draws.sample(static_cast<int64_t>(groups.size()), 1 + i % 3)) {
      constraints.push_back(draw_constraint(pick(groups[g], draws), draws));
      text += " " + constraints.back().text;
    }
    TaskItem& item = items.emplace_back();
    item.id = std::to_string(i);
    item.generated = {{as_chat(text), {}, kMaxTokens}};
    item.judge = [constraints](const Answers& given) {
      const std::string_view answer = stripped(given.texts.front());
      double held = 0;
      json::object by_kind;
      Outcome outcome;
      for (const Constraint& constraint : constraints) {
        const bool holds = !answer.empty() && constraint.holds(answer);
        held += holds ? 1 : 0;
        by_kind[constraint.kind] = holds;
        outcome.figures.push_back({"followed@" + constraint.kind, holds ? 1.0 : 0.0});
      }
      const auto all = static_cast<double>(constraints.size());
      outcome.figures.insert(outcome.figures.begin(),
                             {{"followed", held == all ? 1.0 : 0.0}, {"constraints", held / all}});
      outcome.sample = {{"answer", answer}, {"constraints", by_kind}};
      return outcome;
    };
  }
  return items;
}

}  // namespace halo
