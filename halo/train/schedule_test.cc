#include "halo/train/schedule.h"

#include <gtest/gtest.h>

#include <filesystem>

#include "halo/base/check.h"
#include "halo/base/json.h"
#include "halo/base/settings_io.h"
#include "halo/train/settings.h"
#include "tests/places.h"
#include "tests/testing.h"

namespace halo {
namespace {

TEST(Schedule, WarmsUpThenFollowsTheCosineToTheMinimum) {
  const Schedule schedule{RateCurve::kWarmupCosine, 1.0, 0.1, 4, 12};
  EXPECT_DOUBLE_EQ(schedule.rate(1), 0.25);
  EXPECT_DOUBLE_EQ(schedule.rate(4), 1.0);
  EXPECT_DOUBLE_EQ(schedule.rate(8), 0.55);  // half way
  EXPECT_DOUBLE_EQ(schedule.rate(12), 0.1);
}

TEST(Schedule, LateIsOneUpdateLate) {
  const Schedule prompt{RateCurve::kWarmupCosine, 1.0, 0.1, 4, 12};
  const Schedule late{RateCurve::kWarmupCosineLate, 1.0, 0.1, 4, 12};
  EXPECT_EQ(late.rate(1), 0);
  for (int64_t k = 2; k <= 12; ++k) EXPECT_EQ(late.rate(k), prompt.rate(k - 1));
}

TEST(Schedule, ConstantStaysAtThePeak) {
  const Schedule schedule{RateCurve::kConstant, 2.0, 0.1, 2, 9};
  EXPECT_EQ(schedule.rate(1), 1.0);
  for (int64_t k = 2; k <= 9; ++k) EXPECT_EQ(schedule.rate(k), 2.0);
}

TEST(Schedule, WorksWithoutWarmUp) {
  EXPECT_EQ((Schedule{RateCurve::kWarmupCosineLate, 2.0, 0.1, 0, 9}).rate(1), 2.0);
  EXPECT_LT((Schedule{RateCurve::kWarmupCosine, 2.0, 0.1, 0, 9}).rate(1), 2.0);
}

TEST(Schedule, LateHasTheOfficialRates) {
  const std::filesystem::path path =
      test::source_dir() / "tests/golden/fixtures/lr-schedule/expected.json";
  const std::string file = path.string();
  int64_t checked = 0;
  const json::value expected_rates = read_json(path);
  for (const auto& [stage, value] : expected_rates.as_object()) {
    const json::object& about = value.as_object();
    const Schedule late{RateCurve::kWarmupCosineLate, json_get<double>(about, "lr", file),
                        json_get<double>(about, "min_lr", file),
                        json_get<int64_t>(about, "warmup", file),
                        json_get<int64_t>(about, "steps", file)};
    for (const auto& [k, rate] : about.at("lr_used_in_update").as_object()) {
      const auto expected = rate.to_number<double>();
      EXPECT_NEAR(late.rate(std::stoll(std::string(k))), expected, 1e-6 * expected)
          << stage << " update " << k;
      ++checked;
    }
  }
  EXPECT_GT(checked, 16);
}

TEST(Settings, NamesTheKeyThatCannotWork) {
  const auto message = [](const TrainRecipe& recipe) -> std::string {
    try {
      check_recipe(recipe, "align");
      return "";
    } catch (const Error& error) {
      return error.what();
    }
  };
  const TrainRecipe good{.tokens = 163'840, .warmup_steps = 5};
  EXPECT_EQ(message(good), "");
  TrainRecipe bad = good;
  bad.tokens_per_step = 1000;
  EXPECT_NE(message(bad).find("align.tokens_per_step"), std::string::npos);
  bad = good;
  bad.warmup_steps = 10;
  EXPECT_NE(message(bad).find("10 must be fewer than the run's 10 steps"), std::string::npos);
}

TEST(Settings, ValuesThatCannotWorkAreRefusedWhenTheyAreRead) {
  const auto refused = [](const std::string& line) {
    TrainRecipe recipe;
    return test::error_of([&] { read_toml(recipe, line, "r.toml"); });
  };
  EXPECT_EQ(refused("keep_checkpoints = 1"),
            "r.toml:1: keep_checkpoints: expected 2 to 1000000, got 1");
  EXPECT_EQ(refused("learning_rate = 0"),
            "r.toml:1: learning_rate: expected 1e-30 to 1e+30, got 0");
  EXPECT_EQ(refused("beta1 = nan"), "r.toml:1: beta1: expected 0 to 0.999999, got nan");
  EXPECT_EQ(refused("clip_mode = 'globl'"),
            "r.toml:1: clip_mode: 'globl' is unknown; did you mean 'global'? (global | per-layer)");
}

// What the versions before wrote: `schedule` said where a schedule came from.
TEST(Settings, OldNamesAreRead) {
  TrainRecipe recipe;
  read_toml(recipe, "schedule = 'paper'\nkeep = 7", "r.toml");
  EXPECT_EQ(recipe.schedule, RateCurve::kWarmupCosineLate);
  EXPECT_EQ(recipe.keep_checkpoints, 7);
  read_toml(recipe, "schedule = 'halo'", "r.toml");
  EXPECT_EQ(recipe.schedule, RateCurve::kWarmupCosine);
}

}  // namespace
}  // namespace halo
