#include "halo/eval/tasks/text.h"

#include <gtest/gtest.h>

namespace halo {
namespace {

TEST(AnswerText, NormalisesAsSquadDoes) {
  EXPECT_EQ(normalised_answer("  The   Cat's \"hat\"! "), "cats hat");
  EXPECT_EQ(normalised_answer("An apple a day, theatre"), "apple day theatre");
  EXPECT_EQ(normalised_answer("the"), "");
  // Punctuation beyond ASCII stays, but ends an article.
  EXPECT_EQ(normalised_answer("a\u2013b"), "\u2013b");
  EXPECT_EQ(normalised_answer("\u00c9COLE"), "\u00e9cole");
  // Removed before words are looked at: "t.h.e" is an article.
  EXPECT_EQ(normalised_answer("t.h.e end"), "end");
}

TEST(AnswerText, ScoresTheBestOfTheAnswers) {
  const AnswerScores scores = score_answer("It was 23 years earlier", {"23 years", "soon"});
  EXPECT_EQ(scores.contains, 1);
  EXPECT_EQ(scores.exact_match, 0);
  EXPECT_DOUBLE_EQ(scores.f1, 2 * (2.0 / 5) * 1 / (2.0 / 5 + 1));
  EXPECT_EQ(score_answer("The 23 Years.", {"23 years"}).exact_match, 1);
  EXPECT_EQ(score_answer("the 23 YEARS", {"23 years"}).contains, 1);
  // A word counts as often as both have it.
  EXPECT_DOUBLE_EQ(score_answer("no no no", {"no no"}).f1, 2 * (2.0 / 3) * 1 / (2.0 / 3 + 1));
  const AnswerScores none = score_answer("", {"x"});
  EXPECT_EQ(none.contains + none.f1 + none.exact_match, 0);
}

TEST(AnswerText, CountsCharactersAndStripsSpace) {
  EXPECT_EQ(num_characters("a\u00e9\u20ac\U0001F600"), 4);
  EXPECT_EQ(stripped(" \n\u00a0a b\u2003 "), "a b");
  EXPECT_EQ(stripped(" \n"), "");
}

}  // namespace
}  // namespace halo
