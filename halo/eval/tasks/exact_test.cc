#include "halo/eval/tasks/exact.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>

#include "halo/base/files.h"
#include "halo/eval/tasks/text.h"
#include "tests/testing.h"

namespace halo {
namespace {

using testing::MatchesRegex;

TEST(Addition, TheLastSumIsMissing) {
  const std::vector<TaskItem> items = addition_items(2, 1);
  ASSERT_EQ(items.size(), 2u);
  EXPECT_THAT(items[0].generated[0].prompt,
              MatchesRegex("([1-9][0-9] \\+ [1-9][0-9] = [0-9]+\n){3}[1-9][0-9] \\+ [1-9][0-9] ="));
  for (const TaskItem& item : items) {
    // Every line's sum is right, and so is the answer that is asked for.
    std::string text = item.generated[0].prompt;
    const std::string answer(item.judge({{}, {""}}).sample.at("answers").at(0).as_string());
    text += " " + answer;
    for (size_t at = 0; at < text.size();) {
      const size_t end = std::min(text.find('\n', at), text.size());
      const std::vector<std::string> words = words_of(text.substr(at, end - at));
      ASSERT_EQ(words.size(), 5u);
      EXPECT_EQ(std::stoll(words[0]) + std::stoll(words[2]), std::stoll(words[4]));
      at = end + 1;
    }
    EXPECT_EQ(item.judge({{}, {" " + answer}}).figures[0].value, 1);
    EXPECT_EQ(item.judge({{}, {answer + "0"}}).figures[0].value, 0);
  }
  EXPECT_EQ(items[1].judge({{}, {""}}).figures[1].name, "exact_match@4");
}

TEST(Copying, CountsTheWordsBeforeTheFirstWrongOne) {
  const TaskItem item = copying_items(3, 1).at(1);
  const std::string answer(item.judge({{}, {""}}).sample.at("answers").at(0).as_string());
  const std::vector<std::string> words = words_of(answer);
  ASSERT_EQ(words.size(), 16u);
  const Outcome half = item.judge({{}, {answer.substr(0, answer.find(" " + words[8] + " "))}});
  EXPECT_EQ(half.figures[0].value, 0);
  EXPECT_EQ(half.figures[2].name, "copied");
  EXPECT_LE(half.figures[2].value, 0.5);
  EXPECT_GT(half.figures[2].value, 0);
  EXPECT_EQ(item.judge({{}, {answer + "\n"}}).figures[2].value, 1);
}

TEST(LongWriting, SeesLoopsAndRepeatedRuns) {
  EXPECT_TRUE(ends_in_loop(words_of("x a b a b a b")));
  EXPECT_TRUE(ends_in_loop(words_of("a a a")));
  EXPECT_FALSE(ends_in_loop(words_of("a b a b")));
  EXPECT_FALSE(ends_in_loop(words_of("a b a b a b c")));
  EXPECT_EQ(distinct_runs(words_of("a b c"), 4), 1);
  EXPECT_EQ(distinct_runs(words_of("a b a b a"), 2), 0.5);

  const test::Folder folder;
  std::string text;
  for (int i = 0; i < 100; ++i) text += "word" + std::to_string(i) + " ";
  write_file(folder / "essays.jsonl", json::serialize(json::object{{"text", text}}));
  const std::vector<TaskItem> items = long_writing_items(folder.path(), 0);
  ASSERT_EQ(items.size(), 1u);
  EXPECT_EQ(words_of(items[0].generated[0].prompt).size(), 60u);
  const Outcome outcome = items[0].judge({{}, {"so it so it so it"}});
  EXPECT_EQ(outcome.figures[1].value, 1);
}

}  // namespace
}  // namespace halo
