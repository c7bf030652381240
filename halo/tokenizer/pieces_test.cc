#include "halo/tokenizer/pieces.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "halo/base/random.h"
#include "halo/base/utf8.h"
#include "halo/tokenizer/regex.h"

namespace halo {
namespace {

using ::testing::ElementsAre;

std::vector<std::string> split(const std::string& text, Pattern pattern = Pattern::kQwen2) {
  std::vector<std::string> pieces;
  for (size_t begin = 0; begin < text.size();) {
    const size_t end = piece_end(pattern, text, begin);
    EXPECT_GT(end, begin);
    pieces.push_back(text.substr(begin, end - begin));
    begin = end;
  }
  return pieces;
}

size_t count_pieces(Pattern pattern, const std::string& unit, size_t bytes) {
  std::string text;
  while (text.size() < bytes) text += unit;
  size_t count = 0;
  for (size_t begin = 0; begin < text.size(); ++count) begin = piece_end(pattern, text, begin);
  return count;
}

TEST(Pieces, WordsTakeOneCharacterBefore) {
  EXPECT_THAT(split("Hello, new world"), ElementsAre("Hello", ",", " new", " world"));
  EXPECT_THAT(split("(a) !b !!c"), ElementsAre("(a", ")", " !", "b", " !!", "c"));
  EXPECT_THAT(split("\ta\xC2\xA0"
                    "b"),
              ElementsAre("\ta",
                          "\xC2\xA0"
                          "b"));
}

TEST(Pieces, ContractionsInEitherCaseAndWithLongS) {
  EXPECT_THAT(split("it's I'LL we'Re"), ElementsAre("it", "'s", " I", "'LL", " we", "'Re"));
  EXPECT_THAT(split("'sa 'rx 'l"), ElementsAre("'s", "a", " '", "rx", " '", "l"));
  EXPECT_THAT(split("'rx'l"), ElementsAre("'rx", "'l"));
  EXPECT_THAT(split("x'ſt"), ElementsAre("x", "'ſ", "t"));
}

TEST(Pieces, NumbersStandAlone) {
  EXPECT_THAT(split("a12 3½Ⅷ"), ElementsAre("a", "1", "2", " ", "3", "½", "Ⅷ"));
}

TEST(Pieces, SymbolsTakeLineEnds) {
  EXPECT_THAT(split("a ;\r\n\n b"), ElementsAre("a", " ;\r\n\n", " b"));
  EXPECT_THAT(split("x\n;\n"), ElementsAre("x", "\n", ";\n"));
}

TEST(Pieces, SpacesEndAtTheLastLineEndOrLeaveOneForTheWord) {
  EXPECT_THAT(split("a  \n \n  b"), ElementsAre("a", "  \n \n", " ", " b"));
  EXPECT_THAT(split("a   1"), ElementsAre("a", "  ", " ", "1"));
  EXPECT_THAT(split("a   "), ElementsAre("a", "   "));
  EXPECT_THAT(split(" \xE3\x80\x80\xC2\x85x"), ElementsAre(" \xE3\x80\x80", "\xC2\x85x"));
}

TEST(Pieces, MarksAreNoLetters) {
  EXPECT_THAT(split("e\u0301a \u0301\u0301"), ElementsAre("e", "\u0301a", " \u0301\u0301"));
}

// Unicode 16, whatever utf8proc knows.
TEST(Pieces, RecentLettersAndNumbers) {
  EXPECT_THAT(split("a\U0002EBF0\U00013460"), ElementsAre("a\U0002EBF0\U00013460"));
  EXPECT_THAT(split("\U000116D0\U000116D1"), ElementsAre("\U000116D0", "\U000116D1"));
}

TEST(Pieces, Llama3TakesUpToThreeDigits) {
  EXPECT_THAT(split("in 12345½", Pattern::kLlama3), ElementsAre("in", " ", "123", "45½"));
  EXPECT_THAT(split("it'S 1", Pattern::kLlama3), ElementsAre("it", "'S", " ", "1"));
}

TEST(Pieces, Gpt2LeadsRunsWithASpace) {
  EXPECT_THAT(split("It's  12 o'Clock!?", Pattern::kGpt2),
              ElementsAre("It", "'s", " ", " 12", " o", "'", "Clock", "!?"));
  EXPECT_THAT(split("a\n\nb \n", Pattern::kGpt2), ElementsAre("a", "\n", "\n", "b", " \n"));
  EXPECT_THAT(split("(a) x'ſ", Pattern::kGpt2), ElementsAre("(", "a", ")", " x", "'", "ſ"));
}

// The scanners against the patterns themselves, on the characters that these tell apart.
TEST(Pieces, CutAsThePatternsDo) {
  const char* units[] = {"a", "s",  "S", "l",      "re", "T",      "'",      "'", "1",
                         "½", " ",  " ", "\t",     "\n", "\r\n",   "\u00A0", "!", "<|",
                         "é", "中", "ſ", "\u0301", "३",  "\u3000", "\u0085", "𝟙", "😀"};
  const std::pair<Pattern, std::string_view> patterns[] = {{Pattern::kGpt2, kGpt2Pattern},
                                                           {Pattern::kQwen2, kQwen2Pattern},
                                                           {Pattern::kLlama3, kLlama3Pattern}};
  for (const auto& [pattern, written] : patterns) {
    ASSERT_EQ(known_pattern(written), pattern);
    const Regex regex(std::string(written), "test");
    for (uint64_t trial = 0; trial < 3'000; ++trial) {
      Random random(1, "pieces", trial);
      std::string text;
      for (int i = 0; i < 24; ++i) text += units[random.below(i, std::size(units))];
      std::vector<std::string> expected;
      regex.for_each_match(text, [&](size_t begin, size_t end) {
        expected.push_back(text.substr(begin, end - begin));
      });
      ASSERT_EQ(split(text, pattern), expected) << written << "\n" << text;
    }
  }
}

// A scanner that goes back over what it has seen would need hours.
TEST(Pieces, LongRunsAreCutInLinearTime) {
  constexpr size_t kBytes = size_t{4} << 20;
  for (const char* unit : {"a", " ", "\n", "!", "'", "中", "\u0301", " \n"})
    EXPECT_EQ(count_pieces(Pattern::kQwen2, unit, kBytes), 1) << unit;
  for (const char* unit : {"7", "'s", "a1", " a"})
    EXPECT_EQ(count_pieces(Pattern::kQwen2, unit, kBytes),
              kBytes / std::string(unit).size() * (unit[0] == 'a' ? 2 : 1))
        << unit;
  for (const char* unit : {"a", " ", "\n", "!", "'", "中", "7", " \n"})
    EXPECT_EQ(count_pieces(Pattern::kGpt2, unit, kBytes), 1) << unit;
  EXPECT_EQ(count_pieces(Pattern::kGpt2, "1a", kBytes), kBytes);
  EXPECT_EQ(count_pieces(Pattern::kLlama3, "7", kBytes), kBytes / 3 + 1);
}

}  // namespace
}  // namespace halo
