#include "halo/eval/statistics.h"

#include <gtest/gtest.h>

#include <cmath>
#include <vector>

namespace halo {
namespace {

// Clusters with sums 3, 1, 2 and counts 2, 2, 1: m = 6/5; rests 3/5, -7/5, 4/5; their squares sum
// to 74/25; G/(G-1) = 3/2; standard error sqrt(111/25) / 5.
TEST(StatisticsTest, ClusteredRatioByHand) {
  const std::vector<double> sums = {1, 2, 1, 0, 2}, counts = {1, 1, 1, 1, 1};
  const std::vector<int64_t> clusters = {7, 7, 9, 9, 4};
  const Estimate estimate = clustered_ratio(sums, counts, clusters);
  EXPECT_DOUBLE_EQ(estimate.mean, 6.0 / 5);
  EXPECT_DOUBLE_EQ(estimate.standard_error, std::sqrt(111.0 / 25) / 5);
  EXPECT_EQ(estimate.n, 5);
  EXPECT_EQ(estimate.clusters, 3);
  EXPECT_DOUBLE_EQ(clustered_mean(sums, clusters).standard_error, estimate.standard_error);
}

TEST(StatisticsTest, SingletonClustersGiveTheUsualStandardError) {
  const std::vector<double> values = {1, 0, 0, 1, 1, 1};
  const std::vector<int64_t> clusters = {0, 1, 2, 3, 4, 5};
  const Estimate estimate = clustered_mean(values, clusters);
  EXPECT_DOUBLE_EQ(estimate.mean, 4.0 / 6);
  // Unbiased variance (4/6 * 2/6 * 6/5) over n.
  EXPECT_NEAR(estimate.standard_error, std::sqrt(4.0 / 6 * 2 / 6 * 6 / 5 / 6), 1e-15);
}

TEST(StatisticsTest, RepeatedItemsOfAClusterAddNoCertainty) {
  const std::vector<double> once = {1, 0, 1}, twice = {1, 1, 0, 0, 1, 1};
  const std::vector<int64_t> clusters = {0, 1, 2}, repeated = {0, 0, 1, 1, 2, 2};
  EXPECT_DOUBLE_EQ(clustered_mean(twice, repeated).standard_error,
                   clustered_mean(once, clusters).standard_error);
}

TEST(StatisticsTest, WhatCannotBeEstimatedIsNull) {
  const std::vector<double> sums = {3, 5}, counts = {2, 0};
  const std::vector<int64_t> clusters = {0, 1};  // the second counts nothing
  const json::object one = estimate_to_json("loss", clustered_ratio(sums, counts, clusters));
  EXPECT_EQ(one, (json::object{{"loss", 1.5}, {"stderr", nullptr}, {"n", 2}, {"clusters", 1}}));
  const json::object none = estimate_to_json("loss", clustered_mean({}, {}));
  EXPECT_EQ(none,
            (json::object{{"loss", nullptr}, {"stderr", nullptr}, {"n", 0}, {"clusters", 0}}));
}

}  // namespace
}  // namespace halo
