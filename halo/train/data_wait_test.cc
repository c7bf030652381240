// The share of a training's time that goes by waiting for batches: by numbers, and of a training
// whose reader is slow.
#include "halo/train/data_wait.h"

#include <gmock/gmock.h>

#include <thread>

#include "halo/train/job_testing.h"

namespace halo::test {
namespace {

TEST(DataWait, IsOfTheLastTwentySteps) {
  DataWait wait;
  EXPECT_EQ(wait.share(), 0);
  wait.add(3, 4);  // the first batch, which nobody could have made ahead
  for (int i = 0; i < 19; ++i) wait.add(0.25, 1);
  EXPECT_NEAR(wait.share(), (3 + 19 * 0.25) / (4 + 19), 1e-12);
  wait.add(0.25, 1);
  EXPECT_NEAR(wait.share(), 0.25, 1e-12);
  EXPECT_TRUE(wait.is_worth_a_warning());
  EXPECT_FALSE(wait.is_worth_a_warning()) << "once";
}

TEST(DataWait, IsNotWorthAWarningWhereLittleIsLost) {
  DataWait few, little, short_ones;
  for (int i = 0; i < 19; ++i) few.add(0.9, 1);
  for (int i = 0; i < 40; ++i) little.add(0.09, 1);
  for (int i = 0; i < 40; ++i) short_ones.add(0.02, 0.04);
  EXPECT_FALSE(few.is_worth_a_warning());
  EXPECT_FALSE(little.is_worth_a_warning());
  EXPECT_FALSE(short_ones.is_worth_a_warning());
}

using DataWaitTest = TrainTest;

std::vector<std::string> warnings_of(const TrainJob& job) {
  std::vector<std::string> texts;
  for (const json::object& event : read_lines(job.directory / "events.jsonl")) {
    if (event.at("event") == "warning") texts.emplace_back(event.at("text").as_string());
  }
  return texts;
}

// Each step has two micro-batches, and takes no time to speak of beside its reader.
TEST_F(DataWaitTest, ASlowReaderIsMeasuredAndWarnedOfOnce) {
  ToyJob toy(directory_ / "run");
  toy.job.recipe.tokens = 24 * 25;
  toy.job.recipe.checkpoint_every = 0;
  toy.job.data = [read = toy.job.data](int64_t step, int64_t first_row, int64_t rows) {
    std::this_thread::sleep_for(std::chrono::milliseconds(30));
    return read(step, first_row, rows);
  };
  train(toy.job);
  const auto lines = read_lines(toy.job.directory / "metrics.jsonl");
  ASSERT_EQ(lines.size(), 25u);
  double waited = 0, seconds = 0;
  for (const json::object& line : lines) {
    const double share = line.at("data_wait").as_double();
    const double step = 24 / line.at("tokens_per_second").as_double();
    EXPECT_GE(share, 0);
    EXPECT_LE(share, 1);
    waited += share * step;
    seconds += step;
  }
  EXPECT_GT(waited, 25 * 2 * 0.030 * 0.9)
      << "of two batches a step, of which one may be made ahead";
  EXPECT_LE(waited, seconds);
  const std::vector<std::string> warnings = warnings_of(toy.job);
  ASSERT_EQ(warnings.size(), 1u);
  EXPECT_THAT(warnings[0], testing::HasSubstr("waited for data"));
}

// The same time, in which batches are made ahead.
TEST_F(DataWaitTest, AReaderThatKeepsUpIsNot) {
  ToyJob toy(directory_ / "run");
  toy.job.recipe.tokens = 24 * 25;
  toy.job.recipe.checkpoint_every = 0;
  toy.job.recipe.micro_batch_rows = 6;
  const auto train_on = toy.job.forward_backward;
  toy.job.forward_backward = [train_on](const TrainBatch& batch, int64_t count) {
    std::this_thread::sleep_for(std::chrono::milliseconds(60));
    return train_on(batch, count);
  };
  toy.job.data = [read = toy.job.data](int64_t step, int64_t first_row, int64_t rows) {
    std::this_thread::sleep_for(std::chrono::milliseconds(5));
    return read(step, first_row, rows);
  };
  train(toy.job);
  std::vector<double> shares;
  for (const json::object& line : read_lines(toy.job.directory / "metrics.jsonl"))
    shares.push_back(line.at("data_wait").as_double());
  std::ranges::sort(shares);
  EXPECT_LT(shares[shares.size() / 2], 0.1);
}

}  // namespace
}  // namespace halo::test
