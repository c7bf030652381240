#include "halo/tokenizer/pieces.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>
#include <vector>

namespace halo {
namespace {

using ::testing::ElementsAre;

std::vector<std::string> split(const std::string& text) {
  std::vector<std::string> pieces;
  for (size_t begin = 0; begin < text.size();) {
    const size_t end = piece_end(text, begin);
    EXPECT_GT(end, begin);
    pieces.push_back(text.substr(begin, end - begin));
    begin = end;
  }
  return pieces;
}

size_t count_pieces(const std::string& unit, size_t bytes) {
  std::string text;
  while (text.size() < bytes) text += unit;
  size_t count = 0;
  for (size_t begin = 0; begin < text.size(); ++count) begin = piece_end(text, begin);
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

// A scanner that goes back over what it has seen would need hours.
TEST(Pieces, LongRunsAreCutInLinearTime) {
  constexpr size_t kBytes = size_t{4} << 20;
  for (const char* unit : {"a", " ", "\n", "!", "'", "中", "\u0301", " \n"})
    EXPECT_EQ(count_pieces(unit, kBytes), 1) << unit;
  for (const char* unit : {"7", "'s", "a1", " a"})
    EXPECT_EQ(count_pieces(unit, kBytes),
              kBytes / std::string(unit).size() * (unit[0] == 'a' ? 2 : 1))
        << unit;
}

}  // namespace
}  // namespace halo
