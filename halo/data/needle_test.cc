#include "halo/data/needle.h"

#include <gmock/gmock.h>

#include <algorithm>
#include <array>
#include <map>
#include <set>

#include "halo/data/shard_testing.h"

namespace halo {
namespace {

using test::error_of;
using test::tokenizer;

std::vector<int64_t> numbered_haystack(int64_t length) {
  // Ids in a range that no template uses would need a larger vocabulary; the letter x will do.
  return std::vector<int64_t>(length, *tokenizer().token_id("x"));
}

std::string digits_of(std::span<const int64_t> ids) {
  return tokenizer().decode(ids);
}

TEST(Needle, PoolsAreDisjointAndLarge) {
  std::set<std::string> all;
  size_t count = 0;
  for (const auto pool : {NeedlePool::kTraining, NeedlePool::kSearch, NeedlePool::kReport}) {
    const auto words = NeedleWriter::keys(pool);
    EXPECT_GE(words.size(), 120);
    count += words.size();
    all.insert(words.begin(), words.end());
  }
  EXPECT_EQ(all.size(), count);
}

TEST(Needle, DocumentHasItsLengthAndItsMarks) {
  const NeedleWriter writer(tokenizer());
  const auto haystack = numbered_haystack(400);
  std::set<std::string> keys, numbers;
  for (uint64_t step = 0; step < 50; ++step) {
    const int64_t length = writer.min_length() + static_cast<int64_t>(step) * 5;
    const auto document =
        writer.compose(haystack, length, Random(7, "needle", step), NeedlePool::kTraining);
    ASSERT_EQ(document.tokens.size(), length);
    ASSERT_EQ(document.marks.size(), length);
    EXPECT_EQ(document.tokens.back(), tokenizer().document_end());

    std::vector<int64_t> answer, own;
    for (int64_t t = 0; t < length; ++t) {
      if (document.marks[t] == 1) answer.push_back(document.tokens[t]);
      if (document.marks[t] == 2) own.push_back(document.tokens[t]);
    }
    EXPECT_EQ(answer.size(), kNeedleDigits);
    EXPECT_EQ(answer, own);
    for (int64_t t = length - 8; t < length - 1; ++t) EXPECT_EQ(document.marks[t], 1);

    const std::string text = tokenizer().decode(document.tokens);
    const std::string number = digits_of(answer);
    EXPECT_THAT(number, testing::MatchesRegex("[0-9]{7}"));
    const size_t asked = text.find("\nWhat is the secret number of ");
    ASSERT_NE(asked, std::string::npos);
    const size_t begin = asked + std::string("\nWhat is the secret number of ").size();
    const std::string key = text.substr(begin, text.find('?', begin) - begin);
    EXPECT_THAT(text, testing::HasSubstr(" The secret number of " + key + " is " + number + "."));
    EXPECT_TRUE(
        text.ends_with("? The secret number of " + key + " is " + number + "<|endoftext|>"));
    const auto words = NeedleWriter::keys(NeedlePool::kTraining);
    EXPECT_THAT(words, testing::Contains(key));
    keys.insert(key);
    numbers.insert(number);
  }
  EXPECT_GT(keys.size(), 30);
  EXPECT_EQ(numbers.size(), 50);
}

// 3 x 6,000 numbers of 10^7: without a partition some 11 would be in two pools.
TEST(Needle, NumbersOfThePoolsAreDisjointAndUniform) {
  const NeedleWriter writer(tokenizer());
  const auto haystack = numbered_haystack(200);
  std::map<std::string, NeedlePool> owner;
  std::array<std::array<int64_t, 10>, kNeedleDigits> counts{};
  for (const auto pool : {NeedlePool::kTraining, NeedlePool::kSearch, NeedlePool::kReport}) {
    for (uint64_t n = 0; n < 6000; ++n) {
      const auto document = writer.compose(haystack, 100, Random(n, "numbers"), pool);
      const std::string number = digits_of(std::span(document.tokens).last(8).first(7));
      EXPECT_EQ(owner.emplace(number, pool).first->second, pool) << number;
      for (int64_t d = 0; d < kNeedleDigits; ++d) ++counts[d][number[d] - '0'];
    }
  }
  // Each digit 1,800 times in each place; five standard deviations are 201.
  for (const auto& place : counts) {
    for (const int64_t count : place) EXPECT_NEAR(count, 1800, 201);
  }
}

TEST(Needle, CompositionIsWhatTheTokenizerWouldGive) {
  const NeedleWriter writer(tokenizer());
  const auto document =
      writer.compose(numbered_haystack(200), 200, Random(3, "needle"), NeedlePool::kReport);
  const std::string text = tokenizer().decode(document.tokens);
  const auto asked = tokenizer().encode(text.substr(text.find("\nWhat")));
  ASSERT_LE(asked.size(), document.tokens.size());
  EXPECT_TRUE(std::equal(asked.rbegin(), asked.rend(), document.tokens.rbegin()));
  const size_t told = text.find(" The secret"), stop = text.find('.', told);
  const auto sentence = tokenizer().encode(text.substr(told, stop + 1 - told));
  EXPECT_NE(
      std::search(document.tokens.begin(), document.tokens.end(), sentence.begin(), sentence.end()),
      document.tokens.end());
}

TEST(Needle, SameDrawsGiveTheSameDocument) {
  const NeedleWriter writer(tokenizer());
  const auto haystack = numbered_haystack(300);
  const auto make = [&](uint64_t seed, uint64_t step) {
    return writer.compose(haystack, 300, Random(seed, "needle", step), NeedlePool::kTraining)
        .tokens;
  };
  EXPECT_EQ(make(1, 5), make(1, 5));
  EXPECT_NE(make(1, 5), make(1, 6));
  EXPECT_NE(make(1, 5), make(2, 5));
}

TEST(Needle, QuestionsForkFromOneHaystackWithANeedleEach) {
  const NeedleWriter writer(tokenizer());
  const std::vector<double> depths{0.0, 0.25, 0.5, 1.0};
  const int64_t length = 1000;
  // Different letters, so that a piece of the haystack that is lost or doubled is seen.
  std::vector<int64_t> text_ids;
  for (int64_t t = 0; t < length; ++t) {
    text_ids.push_back(*tokenizer().token_id(std::string(1, static_cast<char>('A' + t * t % 26))));
  }
  const auto result =
      writer.compose_haystack(text_ids, length, depths, Random(1, "eval"), NeedlePool::kReport);
  ASSERT_EQ(result.questions.size(), 4);
  ASSERT_LT(result.ids.size(), length);
  EXPECT_TRUE(std::equal(result.ids.begin(), result.ids.end(), text_ids.begin()));
  const std::string text = tokenizer().decode(result.ids);
  const auto words = NeedleWriter::keys(NeedlePool::kReport);
  std::set<std::string> keys;
  std::set<std::array<int64_t, kNeedleDigits>> answers;
  size_t longest = 0;
  int64_t previous = 0;
  for (size_t n = 0; n < depths.size(); ++n) {
    const NeedleQuestion& question = result.questions[n];
    EXPECT_EQ(question.depth, depths[n]);
    EXPECT_NEAR(static_cast<double>(question.prefix),
                depths[n] * static_cast<double>(result.ids.size()), 0.5);
    EXPECT_GE(question.prefix, previous);
    previous = question.prefix;
    std::vector<int64_t> prompt(result.ids.begin(), result.ids.begin() + question.prefix);
    prompt.insert(prompt.end(), question.ids.begin(), question.ids.end());
    longest = std::max(longest, prompt.size());
    EXPECT_EQ(prompt.back(), *tokenizer().token_id("Ġ"));
    // Nothing but the haystack, this question's needle in it, and the question.
    const std::string told = " The secret number of " + question.key + " is ";
    EXPECT_EQ(tokenizer().decode(prompt),
              text.substr(0, question.prefix) + told + digits_of(question.answer) + "." +
                  text.substr(question.prefix) + "\nWhat is the secret number of " + question.key +
                  "?" + told);
    EXPECT_THAT(digits_of(question.answer), testing::MatchesRegex("[0-9]{7}"));
    EXPECT_THAT(words, testing::Contains(question.key));
    keys.insert(question.key);
    answers.insert(question.answer);
  }
  EXPECT_EQ(keys.size(), 4);
  EXPECT_EQ(answers.size(), 4);
  EXPECT_EQ(longest + kNeedleDigits, length);
}

TEST(Needle, DepthsOfAHaystackMustRise) {
  const NeedleWriter writer(tokenizer());
  const std::vector<double> falling{0.5, 0.25};
  EXPECT_THAT(error_of([&] {
                writer.compose_haystack(numbered_haystack(500), 500, falling, Random(1, "eval"),
                                        NeedlePool::kReport);
              }),
              testing::HasSubstr("depths must rise"));
}

TEST(Needle, TooShortIsAnError) {
  const NeedleWriter writer(tokenizer());
  EXPECT_NE(error_of([&] {
              writer.compose(numbered_haystack(10), 400, Random(1, "x"), NeedlePool::kTraining);
            }),
            "no error");
  EXPECT_NE(error_of([&] {
              writer.compose(numbered_haystack(100), 12, Random(1, "x"), NeedlePool::kTraining);
            }),
            "no error");
}

}  // namespace
}  // namespace halo
