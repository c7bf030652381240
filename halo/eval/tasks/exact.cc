#include "halo/eval/tasks/exact.h"

#include <fmt/ranges.h>

#include <algorithm>
#include <array>
#include <set>

#include "halo/data/needle.h"
#include "halo/eval/tasks/item_file.h"
#include "halo/eval/tasks/made/prompt.h"
#include "halo/eval/tasks/text.h"

namespace halo {
namespace {

using made::Draws;

// One line is to be written; the answer's size names the second figure.
TaskItem exact_item(int64_t index, std::string prompt, std::string answer, int64_t size,
                    int64_t max_tokens) {
  TaskItem item{std::to_string(index)};
  item.generated = {{std::move(prompt), {"\n"}, max_tokens}};
  item.judge = [answer, size](const Answers& given) {
    const std::string text(stripped(given.texts.front()));
    const double right = text == answer ? 1 : 0;
    return Outcome{{{"exact_match", right}, {fmt::format("exact_match@{}", size), right}},
                   {{"answer", text}, {"answers", json::array{answer}}}};
  };
  return item;
}

}  // namespace

std::vector<TaskItem> addition_items(int64_t count, uint64_t seed) {
  std::vector<TaskItem> items;
  for (int64_t i = 0; i < count; ++i) {
    Draws draws(Random(seed, "addition", i));
    const int64_t digits = i % 2 == 0 ? 2 : 4;
    std::string prompt;
    std::string sum;
    for (int example = 0; example < 4; ++example) {
      const std::string a = draws.digits(digits), b = draws.digits(digits);
      prompt += fmt::format("{}{} + {} =", sum.empty() ? "" : " " + sum + "\n", a, b);
      sum = std::to_string(std::stoll(a) + std::stoll(b));
    }
    items.push_back(exact_item(i, std::move(prompt), sum, digits, 16));
  }
  return items;
}

std::vector<TaskItem> copying_items(int64_t count, uint64_t seed) {
  const std::vector<std::string> vocabulary = NeedleWriter::keys(NeedlePool::kReport);
  std::vector<TaskItem> items;
  for (int64_t i = 0; i < count; ++i) {
    Draws draws(Random(seed, "copying", i));
    const int64_t words = std::array<int64_t, 3>{4, 16, 64}[i % 3];
    const auto list = [&](int64_t length) {
      std::vector<std::string> chosen;
      for (int64_t w = 0; w < length; ++w) {
        chosen.push_back(vocabulary[draws.below(static_cast<int64_t>(vocabulary.size()))]);
      }
      return fmt::format("{}", fmt::join(chosen, " "));
    };
    const std::string example = list(4), answer = list(words);
    TaskItem item = exact_item(
        i,
        fmt::format("Words: {}\nThe same words again: {}\n\nWords: {}\nThe same words again:",
                    example, example, answer),
        answer, words, 6 * words);
    item.judge = [answer, judge = std::move(item.judge)](const Answers& given) {
      Outcome outcome = judge(given);
      const std::vector<std::string> wanted = words_of(answer);
      const std::vector<std::string> written = words_of(given.texts.front());
      const auto same = std::ranges::mismatch(wanted, written).in1 - wanted.begin();
      outcome.figures.push_back(
          {"copied", static_cast<double>(same) / static_cast<double>(wanted.size())});
      return outcome;
    };
    items.push_back(std::move(item));
  }
  return items;
}

bool ends_in_loop(const std::vector<std::string>& words) {
  constexpr size_t kLongest = 64;
  const auto end = words.end();
  for (size_t period = 1; period <= kLongest && 3 * period <= words.size(); ++period) {
    const auto step = static_cast<int64_t>(period);
    if (std::equal(end - 2 * step, end, end - 3 * step)) return true;
  }
  return false;
}

double distinct_runs(const std::vector<std::string>& words, size_t length) {
  if (words.size() < length) return 1;
  std::set<std::vector<std::string>> runs;
  const size_t count = words.size() - length + 1;
  for (size_t i = 0; i < count; ++i) {
    runs.emplace(words.begin() + static_cast<int64_t>(i),
                 words.begin() + static_cast<int64_t>(i + length));
  }
  return static_cast<double>(runs.size()) / static_cast<double>(count);
}

std::vector<TaskItem> long_writing_items(const std::filesystem::path& directory, int64_t limit) {
  constexpr size_t kPromptWords = 60;
  constexpr int64_t kMaxTokens = 1024;
  std::vector<TaskItem> items;
  read_items(directory, "essays", limit, [&](const ItemLine& line) {
    std::vector<std::string> words = words_of(line.text("text"));
    words.resize(std::min(words.size(), kPromptWords));
    TaskItem& item = items.emplace_back(TaskItem{line.id()});
    item.generated = {{fmt::format("{}", fmt::join(words, " ")), {}, kMaxTokens}};
    item.judge = [](const Answers& given) {
      const std::vector<std::string> written = words_of(given.texts.front());
      return Outcome{
          {{"distinct_4", distinct_runs(written, 4)}, {"loop", ends_in_loop(written) ? 1.0 : 0.0}},
          {{"answer", given.texts.front()}}};
    };
  });
  return items;
}

}  // namespace halo
