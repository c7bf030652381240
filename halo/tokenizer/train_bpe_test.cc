#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "halo/base/check.h"
#include "halo/base/json.h"
#include "halo/tokenizer/tokenizer.h"

namespace halo {
namespace {

using ::testing::ElementsAre;

std::vector<std::string> merges(const std::vector<std::string>& texts, int64_t vocab_size) {
  const json::value value = parse_json(train_bpe(texts, vocab_size, {}), "trained");
  std::vector<std::string> out;
  for (const json::value& merge : value.at("model").at("merges").as_array())
    out.emplace_back(merge.as_string());
  return out;
}

TEST(TrainBpe, FallingCountThenSmallerPair) {
  EXPECT_THAT(merges({"aab aab xy"}, 258), ElementsAre("a a", "aa b"));
  EXPECT_THAT(merges({"ab cd"}, 257), ElementsAre("\u0120 c"));
  EXPECT_THAT(merges({"ba", "ab", "ab"}, 258), ElementsAre("a b", "b a"));
}

TEST(TrainBpe, RunsOfOneCharacter) {
  EXPECT_THAT(merges({"aaaaaaaa"}, 259), ElementsAre("a a", "aa aa", "aaaa aaaa"));
}

// Every merge must be the one that counting from the start would choose.
TEST(TrainBpe, CountsStayExact) {
  const std::vector<std::string> texts = {"banana bandana cabana anagram", "bananas and ananas",
                                          "abracadabra banana nab nabna"};
  const std::vector<std::string> trained = merges(texts, 276);
  ASSERT_EQ(trained.size(), 20);
  std::vector<std::vector<std::string>> words;
  for (const std::string& text : texts) {
    for (const char c : text) {
      if (words.empty() || c == ' ' || &c == text.data()) words.emplace_back();
      words.back().push_back(c == ' ' ? "\u0120" : std::string(1, c));
    }
  }
  for (const std::string& merge : trained) {
    std::map<std::pair<std::string, std::string>, int> counts;
    for (const auto& word : words)
      for (size_t i = 1; i < word.size(); ++i) ++counts[{word[i - 1], word[i]}];
    // The map rises by pair of strings. The space's character sorts after the letters, the space
    // itself before them.
    const auto bytes = [](std::string s) {
      return s.starts_with("\u0120") ? " " + s.substr(2) : s;
    };
    const auto best = std::max_element(counts.begin(), counts.end(), [&](auto& a, auto& b) {
      if (a.second != b.second) return a.second < b.second;
      return std::pair(bytes(a.first.first), bytes(a.first.second)) >
             std::pair(bytes(b.first.first), bytes(b.first.second));
    });
    const auto [left, right] = best->first;
    EXPECT_EQ(merge, left + " " + right);
    for (auto& word : words) {
      for (size_t i = 1; i < word.size(); ++i) {
        if (word[i - 1] != left || word[i] != right) continue;
        word[i - 1] += right;
        word.erase(word.begin() + i);
      }
    }
  }
}

TEST(TrainBpe, TokenizerReadsItAndUsesTheMerges) {
  const Tokenizer tokenizer(train_bpe({"low lower lowest"}, 260, {"<|endoftext|>"}), "trained");
  EXPECT_EQ(tokenizer.vocab_size(), 260);
  EXPECT_THAT(tokenizer.encode("low"), ElementsAre(*tokenizer.token_id("low")));
  EXPECT_EQ(tokenizer.document_end(), 259);
}

TEST(TrainBpe, SameTextSameFile) {
  const std::vector<std::string> texts = {"one two three four", "two three", "\xFF e\u0301"};
  EXPECT_EQ(train_bpe(texts, 265, {"<s>"}), train_bpe(texts, 265, {"<s>"}));
}

TEST(TrainBpe, Refusals) {
  EXPECT_THROW(train_bpe({"some text"}, 256, {"<s>"}), Error);         // no room
  EXPECT_THROW(train_bpe({"ab"}, 300, {}), Error);                     // too little text
  EXPECT_THROW(train_bpe({"abcd abcd"}, 259, {"<s>", "<s>"}), Error);  // twice
  EXPECT_THROW(train_bpe({"abcd abcd"}, 259, {""}), Error);            // empty
  EXPECT_THROW(train_bpe({"abab abab"}, 258, {"ab"}), Error);          // a token already
}

}  // namespace
}  // namespace halo
