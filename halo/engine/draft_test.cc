#include "halo/engine/draft.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace halo {
namespace {

using testing::ElementsAre;
using testing::IsEmpty;

TEST(DraftSource, ProposesWhatFollowedTheSameThreeTokens) {
  DraftSource source;
  std::vector<int64_t> tokens = {1, 2, 3, 4, 5, 6, 9, 1, 2};
  EXPECT_THAT(source.propose(tokens, 8), IsEmpty());  // two of them
  tokens.push_back(3);
  EXPECT_THAT(source.propose(tokens, 8), ElementsAre(4, 5, 6, 9, 1, 2, 3, 4));
  EXPECT_THAT(source.propose(tokens, 2), ElementsAre(4, 5));
  EXPECT_THAT(source.propose(tokens, 0), IsEmpty());
  tokens.push_back(7);
  EXPECT_THAT(source.propose(tokens, 8), IsEmpty());
}

TEST(DraftSource, TheNewestPlaceWins) {
  DraftSource source;
  const std::vector<int64_t> tokens = {1, 2, 3, 4, 1, 2, 3, 5, 1, 2, 3};
  EXPECT_THAT(source.propose(tokens, 2), ElementsAre(5, 1));
}

TEST(DraftSource, ShortTextsHaveNone) {
  DraftSource source;
  EXPECT_THAT(source.propose({}, 8), IsEmpty());
  const std::vector<int64_t> tokens = {7, 7, 7, 7};
  EXPECT_THAT(source.propose(std::span(tokens).first(3), 8), IsEmpty());
  EXPECT_THAT(source.propose(tokens, 3), ElementsAre(7, 7, 7));
}

// Wrong drafts are followed by longer and longer pauses, which right ones end.
TEST(DraftSource, PausesWhileItDoesNotPay) {
  DraftSource source;
  std::vector<int64_t> tokens(10, 7);
  const auto proposals_left_out = [&] {
    int64_t count = 0;
    while (source.propose(tokens, 8).empty()) {
      ++count;
      tokens.push_back(7);
    }
    return count;
  };
  EXPECT_EQ(proposals_left_out(), 0);
  source.settle(1);
  EXPECT_EQ(proposals_left_out(), 4);
  source.settle(0);
  EXPECT_EQ(proposals_left_out(), 8);
  source.settle(2);
  EXPECT_EQ(proposals_left_out(), 0);
  source.settle(0);
  EXPECT_EQ(proposals_left_out(), 4);
}

// The newest 65,536 tokens of a longer prompt are looked at, and all that come after it.
TEST(DraftSource, LooksBackSoFar) {
  std::vector<int64_t> tokens = {1, 2, 3, 4};
  for (int64_t i = 0; i < 70'000; ++i) tokens.push_back(10 + i);
  tokens.insert(tokens.end(), {1, 2, 3});
  DraftSource source;
  EXPECT_THAT(source.propose(tokens, 8), IsEmpty());
  tokens.insert(tokens.end(), {69'000, 69'001, 69'002});
  EXPECT_THAT(source.propose(tokens, 2), ElementsAre(69'003, 69'004));
}

}  // namespace
}  // namespace halo
