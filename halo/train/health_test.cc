#include "halo/train/health.h"

#include <gtest/gtest.h>

namespace halo {
namespace {

void add(Health& health, int64_t n, double loss, double norm, bool skipped = false) {
  for (int64_t i = 0; i < n; ++i) health.add(loss, norm, skipped);
}

void expect_state(const Health& health, bool suspicious, bool diverged) {
  EXPECT_EQ(health.suspicious(), suspicious);
  EXPECT_EQ(health.diverged().has_value(), diverged);
}

TEST(Health, GrowingNormsDiverge) {
  Health health(10);
  add(health, 40, 1, 0.5);
  add(health, 2, 1, 50);  // two spikes are no trend
  expect_state(health, false, false);
  add(health, 3, 1, 50);
  expect_state(health, true, false);
  add(health, 15, 1, 50);
  ASSERT_TRUE(health.diverged());
  EXPECT_NE(health.diverged()->find("100 times"), std::string::npos);
}

TEST(Health, AHighLossMustLast) {
  Health health(10);
  add(health, 20, 1, 1);
  EXPECT_EQ(health.first_loss(), 1);
  add(health, 100, 3.5, 1);
  expect_state(health, false, false);
  add(health, 2, 8.5, 1);  // rows that differ
  expect_state(health, false, false);
  add(health, 1, 8.5, 1);
  expect_state(health, true, false);
  add(health, 27, 8.5, 1);
  ASSERT_TRUE(health.diverged());
  EXPECT_NE(health.diverged()->find("8.5 times the 1 that it began at"), std::string::npos);
  EXPECT_EQ(health.last_loss(), 8.5);
}

// Above half of the bound nothing stops, and no checkpoint is replaced.
TEST(Health, ARunThatComesBackGoesOn) {
  Health health(10);
  add(health, 5, 1, 1);
  add(health, 200, 5, 1);
  expect_state(health, true, false);
  add(health, 5, 1, 1);
  expect_state(health, false, false);
}

// By a rate far too high from the first update on: norms stay as they were.
TEST(Health, AStudentThrownAtOnceDiverges) {
  Health health(30);
  for (const double loss : {0.5, 3.9, 5.4, 7.8, 19.0}) health.add(loss, 1, false);
  expect_state(health, false, false);
  add(health, 1, 12, 1);
  expect_state(health, true, false);
  add(health, 45, 5, 1);
  EXPECT_TRUE(health.diverged());
}

// A loss near 0 that is a few times larger is none to stop for.
TEST(Health, ASmallLossMayGrow) {
  Health health(30);
  add(health, 3, 1e-4, 1);
  add(health, 100, 0.35, 1);
  expect_state(health, false, false);
}

// Rows with needles in them, say.
TEST(Health, AFirstLossThatIsHighHidesNothing) {
  Health health(30);
  health.add(4, 1, false);
  add(health, 25, 1, 1);
  add(health, 50, 8.5, 1);
  EXPECT_TRUE(health.diverged());
}

TEST(Health, ADeadGradientDiverges) {
  Health health(10);
  add(health, 3, 1, 0.5);
  add(health, 5, 2, 0);
  expect_state(health, true, false);
  add(health, 15, 2, 0);
  EXPECT_TRUE(health.diverged());
  Health converged(10);  // nothing to learn from the first step on
  add(converged, 40, 0, 0);
  EXPECT_FALSE(converged.diverged());
}

TEST(Health, FactorZeroNeverStops) {
  Health health(0);
  add(health, 40, 1, 1);
  add(health, 400, 100, 1000);
  expect_state(health, false, false);
}

TEST(Health, CountsSkippedUpdates) {
  Health health(10);
  add(health, 3, 0, 0, true);
  EXPECT_EQ(health.skipped_in_a_row(), 3);
  expect_state(health, true, false);
  add(health, 1, 1, 1);
  expect_state(health, false, false);
  EXPECT_EQ(health.skipped_in_a_row(), 0);
  EXPECT_EQ(health.skipped(), 3);
  EXPECT_EQ(health.last_loss(), 1);
}

}  // namespace
}  // namespace halo
