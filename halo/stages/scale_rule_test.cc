#include "halo/stages/scale_rule.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "halo/base/check.h"

namespace halo {
namespace {

TEST(ScaleRule, AccuracyFirstThenLossThenTheLargerA) {
  // Found more, by more than a standard error: the loss does not matter.
  EXPECT_EQ(choose_scale({{100, 0.5, 0.1, 1.0}, {500, 0.9, 0.1, 2.0}}), 1u);
  // Within one standard error of the best one: the lower loss, whichever stands first.
  EXPECT_EQ(choose_scale({{100, 0.85, 0.3, 1.0}, {500, 0.9, 0.1, 2.0}}), 0u);
  EXPECT_EQ(choose_scale({{100, 0.9, 0.1, 2.0}, {500, 0.85, 0.3, 1.0}}), 1u);
  // The best one's error counts, not the other's.
  EXPECT_EQ(choose_scale({{100, 0.85, 0.3, 1.0}, {500, 0.9, 0.01, 2.0}}), 1u);
  // All equal: the nearest to no scaling, in any order.
  EXPECT_EQ(choose_scale({{100, 1, 0, 2}, {3000, 1, 0, 2}, {500, 1, 0, 2}}), 1u);
  // No scale (a infinite) and a constant one (0) are candidates like the others.
  const double none = std::numeric_limits<double>::infinity();
  EXPECT_EQ(choose_scale({{none, 1, 0, 1.5}, {0, 1, 0, 2}, {500, 1, 0, 2}}), 0u);
  EXPECT_EQ(choose_scale({{none, 0.2, 0, 1.5}, {0, 1, 0, 1.8}, {500, 1, 0, 2}}), 1u);
  EXPECT_EQ(choose_scale({{none, 0.2, 0, 1.5}, {0, 0.5, 0, 1.8}, {500, 1, 0, 2}}), 2u);
  EXPECT_EQ(choose_scale({{0, 1, 0, 2}, {3000, 1, 0, 2}, {none, 1, 0, 2}}), 2u);
  // One haystack gives no error: the best alone.
  EXPECT_EQ(choose_scale({{100, 0.8, 0.1, 1}, {500, 0.9, std::nan(""), 2}}), 1u);
}

TEST(ScaleRule, RefinesBetweenTheBestAndItsNeighbours) {
  EXPECT_EQ(refined({1000, 100, 10}, 100), (std::vector<double>{32, 316}));
  EXPECT_EQ(refined({100, 1000}, 100), (std::vector<double>{316}));
  EXPECT_EQ(refined({100, 105, 1000}, 105), (std::vector<double>{324}));
  EXPECT_TRUE(refined({500}, 500).empty());
}

TEST(ScaleRule, SearchesBeyondTheTrainingLength) {
  EXPECT_EQ(lengths_beyond({}, 40960), (std::vector<int64_t>{163'840, 327'680}));
  EXPECT_EQ(lengths_beyond({512, 2048}, 1024), (std::vector<int64_t>{512, 2048}));
  EXPECT_THROW(lengths_beyond({512, 1024}, 1024), Error);
}

}  // namespace
}  // namespace halo
