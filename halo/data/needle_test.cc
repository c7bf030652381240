#include "halo/data/needle.h"

#include <gmock/gmock.h>

#include <algorithm>
#include <array>
#include <map>
#include <set>

#include "halo/data/tokenizer_testing.h"

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
  std::set<std::vector<int64_t>> answers;
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

// The kinds of tokenizers there are, and how many tokens they make of seven digits.
struct Kind {
  std::string name, json;
  int64_t fewest, most;
};

class NeedleOfEveryTokenizer : public testing::TestWithParam<Kind> {
 protected:
  Tokenizer tokenizer_{GetParam().json, "tokenizer.json"};
  NeedleWriter writer_{tokenizer_, tokenizer_.document_begin()};

  // A token over and over that can be cut anywhere: a word with its space, or a comma.
  std::vector<int64_t> haystack(int64_t length) const {
    int64_t id = tokenizer_.encode("the rain").back();
    if (tokenizer_.token_bytes(id) != " rain") id = tokenizer_.encode("the,").back();
    return std::vector<int64_t>(length, id);
  }
  static void expect_count(const std::vector<int64_t>& answer) {
    EXPECT_GE(std::ssize(answer), GetParam().fewest);
    EXPECT_LE(std::ssize(answer), GetParam().most);
  }
  // The ids of a text, with the begin token.
  std::vector<int64_t> whole(const std::string& text) const {
    return tokenizer_.encode(text, true);
  }
};

TEST_P(NeedleOfEveryTokenizer, DocumentIsWhatTheTokenizerMakesOfItsText) {
  const auto text = haystack(300);
  for (uint64_t n = 0; n < 20; ++n) {
    const int64_t length = writer_.min_length() + static_cast<int64_t>(n);
    auto [tokens, marks] =
        writer_.compose(text, length, Random(n, "needle"), NeedlePool::kTraining);
    ASSERT_EQ(std::ssize(tokens), length);
    ASSERT_EQ(std::ssize(marks), length);
    std::vector<int64_t> answer, own;
    for (size_t t = 0; t < tokens.size(); ++t) {
      if (marks[t] == static_cast<uint8_t>(NeedleMark::kAnswer)) answer.push_back(tokens[t]);
      if (marks[t] == static_cast<uint8_t>(NeedleMark::kOwnDigits)) own.push_back(tokens[t]);
    }
    expect_count(answer);
    EXPECT_EQ(own, answer);
    std::string number;
    for (const int64_t id : answer) number += tokenizer_.token_bytes(id);
    EXPECT_THAT(number, testing::MatchesRegex(" ?[0-9]{7}"));
    EXPECT_TRUE(std::equal(answer.rbegin(), answer.rend(), tokens.rbegin() + 1));
    EXPECT_EQ(tokens.back(), tokenizer_.document_end());
    tokens.pop_back();
    EXPECT_EQ(tokens, whole(tokenizer_.decode(tokens, true)));
  }
}

TEST_P(NeedleOfEveryTokenizer, PromptsAreWhatTheTokenizerMakesOfTheirText) {
  const std::vector<double> depths{0.0, 0.5, 1.0};
  const auto result =
      writer_.compose_haystack(haystack(300), 200, depths, Random(1, "eval"), NeedlePool::kReport);
  EXPECT_EQ(result.ids, whole(tokenizer_.decode(result.ids, true)));
  int64_t longest = 0;
  for (const NeedleQuestion& question : result.questions) {
    expect_count(question.answer);
    std::vector<int64_t> ids(result.ids.begin(), result.ids.begin() + question.prefix);
    ids.insert(ids.end(), question.ids.begin(), question.ids.end());
    ids.insert(ids.end(), question.answer.begin(), question.answer.end());
    EXPECT_EQ(ids, whole(tokenizer_.decode(ids, true)));
    longest = std::max<int64_t>(longest, std::ssize(ids));
  }
  EXPECT_EQ(longest, 200);
}

TEST_P(NeedleOfEveryTokenizer, TextThatMentionsANeedleIsSeen) {
  EXPECT_TRUE(writer_.mentions_needle(tokenizer_.encode("x. The secret number of the rain is 3.")));
  EXPECT_TRUE(writer_.mentions_needle(tokenizer_.encode("The secret number of the rain is 3.")));
  EXPECT_FALSE(writer_.mentions_needle(tokenizer_.encode("The number of the rain is secret.")));
}

INSTANTIATE_TEST_SUITE_P(Kinds, NeedleOfEveryTokenizer,
                         testing::Values(Kind{"digit_by_digit", test::tokenizer_json(), 7, 7},
                                         Kind{"prefixed_space", test::prefixed_space_json(), 7, 7},
                                         Kind{"metaspace", test::prefixed_space_json(true), 7, 7},
                                         Kind{"digit_pairs", test::digit_pairs_json(), 4, 5},
                                         Kind{"digit_triples", test::digit_triples_json(), 3, 3}),
                         [](const auto& info) { return info.param.name; });

TEST(Needle, DigitsThatATokenizerDropsAreAnError) {
  json::object file = parse_json(test::tokenizer_json(), "tokenizer.json").as_object();
  file["normalizer"] = {{"type", "Replace"}, {"pattern", {{"String", "7"}}}, {"content", "x"}};
  const Tokenizer tokenizer(json::serialize(file), "tokenizer.json");
  EXPECT_THAT(error_of([&] { NeedleWriter{tokenizer}; }),
              testing::AllOf(testing::HasSubstr("123456x"), testing::HasSubstr("keeps digits")));
}

TEST(Needle, HaystacksHaveNoBeginAndNoEndTokens) {
  const int64_t begin = 5, end = tokenizer().document_end();
  const NeedleWriter writer(tokenizer(), begin);
  const std::vector<int64_t> text = {begin, 7, 8, end, begin, 9, end};
  const auto read = [&](const std::vector<int64_t>& from) {
    return writer.haystack_text(5, std::ssize(from),
                                [&](int64_t position, int64_t n, int64_t* out) {
                                  for (int64_t i = 0; i < n; ++i)
                                    out[i] = from[(position + i) % from.size()];
                                });
  };
  EXPECT_EQ(read(text), (std::vector<int64_t>{7, 8, 9, 7, 8}));
  EXPECT_EQ(read({begin, end}), std::vector<int64_t>{});
  const auto document =
      writer.compose(numbered_haystack(300), 300, Random(1, "n"), NeedlePool::kTraining);
  EXPECT_EQ(document.tokens.front(), begin);
  EXPECT_EQ(document.marks.front(), 0);
  EXPECT_EQ(document.tokens.size(), 300);
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
