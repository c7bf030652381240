#include "halo/base/random.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <set>

namespace halo {
namespace {

using Words = std::array<uint32_t, 4>;

// Known answers published with Random123.
TEST(Philox, KnownAnswers) {
  EXPECT_EQ(philox4x32({0, 0, 0, 0}, {0, 0}),
            (Words{0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}));
  EXPECT_EQ(philox4x32({~0u, ~0u, ~0u, ~0u}, {~0u, ~0u}),
            (Words{0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd}));
  EXPECT_EQ(philox4x32({0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344}, {0xa4093822, 0x299f31d0}),
            (Words{0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1}));
}

TEST(Random, IsAFunctionOfItsFourArguments) {
  const Random random(7, "init", 3);
  EXPECT_EQ(random.bits(5), Random(7, "init", 3).bits(5));
  const std::set<uint64_t> different = {random.bits(5),
                                        random.bits(6),
                                        Random(8, "init", 3).bits(5),
                                        Random(7, "shuffle", 3).bits(5),
                                        Random(7, "init", 4).bits(5),
                                        random.bits(5 + (uint64_t{1} << 32))};
  EXPECT_EQ(different.size(), 6u);
}

// Bounds are five standard errors.
TEST(Random, UniformHasItsMoments) {
  const Random random(1, "uniform");
  const int64_t n = 100'000;
  double sum = 0, squares = 0;
  for (int64_t i = 0; i < n; ++i) {
    const double u = random.uniform(i);
    ASSERT_GE(u, 0);
    ASSERT_LT(u, 1);
    sum += u;
    squares += u * u;
  }
  EXPECT_NEAR(sum / n, 0.5, 5 * std::sqrt(1.0 / 12 / n));
  EXPECT_NEAR(squares / n, 1.0 / 3, 5 * std::sqrt(4.0 / 45 / n));
}

TEST(Random, NormalHasItsMoments) {
  const Random random(1, "normal");
  const int64_t n = 100'000;
  double sum = 0, squares = 0, fourths = 0;
  for (int64_t i = 0; i < n; ++i) {
    const double x = random.normal(i);
    ASSERT_TRUE(std::isfinite(x));
    sum += x;
    squares += x * x;
    fourths += x * x * x * x;
  }
  EXPECT_NEAR(sum / n, 0, 5 * std::sqrt(1.0 / n));
  EXPECT_NEAR(squares / n, 1, 5 * std::sqrt(2.0 / n));
  EXPECT_NEAR(fourths / n, 3, 5 * std::sqrt(96.0 / n));
}

TEST(Random, BelowReachesEveryValueEvenly) {
  const Random random(2, "below");
  const int64_t n = 70'000;
  std::array<int64_t, 7> counts{};
  for (int64_t i = 0; i < n; ++i) ++counts.at(random.below(i, 7));
  for (const int64_t count : counts) EXPECT_NEAR(count, n / 7, 5 * std::sqrt(n * 6.0 / 49));
  EXPECT_EQ(random.below(0, 1), 0);
}

TEST(Random, PermutationHoldsEachIndexOnce) {
  const Random random(3, "shuffle");
  std::vector<int64_t> order = random.permutation(1000);
  EXPECT_EQ(order, random.permutation(1000));
  EXPECT_FALSE(std::is_sorted(order.begin(), order.end()));
  std::sort(order.begin(), order.end());
  for (int64_t i = 0; i < 1000; ++i) ASSERT_EQ(order[i], i);
  EXPECT_TRUE(random.permutation(0).empty());
}

}  // namespace
}  // namespace halo
