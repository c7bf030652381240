#include "halo/train/schedule.h"

#include <gtest/gtest.h>

#include <filesystem>

#include "halo/base/check.h"
#include "halo/base/json.h"
#include "halo/train/settings.h"

namespace halo {
namespace {

TEST(Schedule, WarmsUpThenFollowsTheCosineToTheMinimum) {
  const Schedule schedule{ScheduleForm::kHalo, 1.0, 0.1, 4, 12};
  EXPECT_DOUBLE_EQ(schedule.rate(1), 0.25);
  EXPECT_DOUBLE_EQ(schedule.rate(4), 1.0);
  EXPECT_DOUBLE_EQ(schedule.rate(8), 0.55);  // half way
  EXPECT_DOUBLE_EQ(schedule.rate(12), 0.1);
}

TEST(Schedule, PaperIsOneUpdateLate) {
  const Schedule halo{ScheduleForm::kHalo, 1.0, 0.1, 4, 12};
  const Schedule paper{ScheduleForm::kPaper, 1.0, 0.1, 4, 12};
  EXPECT_EQ(paper.rate(1), 0);
  for (int64_t k = 2; k <= 12; ++k) EXPECT_EQ(paper.rate(k), halo.rate(k - 1));
}

TEST(Schedule, ConstantStaysAtThePeak) {
  const Schedule schedule{ScheduleForm::kConstant, 2.0, 0.1, 2, 9};
  EXPECT_EQ(schedule.rate(1), 1.0);
  for (int64_t k = 2; k <= 9; ++k) EXPECT_EQ(schedule.rate(k), 2.0);
}

TEST(Schedule, WorksWithoutWarmUp) {
  EXPECT_EQ((Schedule{ScheduleForm::kPaper, 2.0, 0.1, 0, 9}).rate(1), 2.0);
  EXPECT_LT((Schedule{ScheduleForm::kHalo, 2.0, 0.1, 0, 9}).rate(1), 2.0);
}

TEST(Schedule, UnknownNameNamesTheNearest) {
  try {
    parse_schedule("papr");
    FAIL();
  } catch (const Error& error) {
    EXPECT_NE(std::string(error.what()).find("did you mean 'paper'"), std::string::npos);
  }
}

TEST(Schedule, PaperHasTheOfficialRates) {
  const std::filesystem::path path =
      HALO_SOURCE_DIR "/tests/golden/fixtures/lr-schedule/expected.json";
  const std::string file = path.string();
  int64_t checked = 0;
  const json::value expected_rates = read_json(path);
  for (const auto& [stage, value] : expected_rates.as_object()) {
    const json::object& about = value.as_object();
    const Schedule paper{ScheduleForm::kPaper, json_get<double>(about, "lr", file),
                         json_get<double>(about, "min_lr", file),
                         json_get<int64_t>(about, "warmup", file),
                         json_get<int64_t>(about, "steps", file)};
    for (const auto& [k, rate] : about.at("lr_used_in_update").as_object()) {
      const auto expected = rate.to_number<double>();
      EXPECT_NEAR(paper.rate(std::stoll(std::string(k))), expected, 1e-6 * expected)
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
  bad = good;
  bad.keep = 1;
  EXPECT_NE(message(bad).find("align.keep"), std::string::npos);
  bad = good;
  bad.clip_mode = "globl";
  EXPECT_NE(message(bad).find("did you mean 'global'"), std::string::npos);
}

}  // namespace
}  // namespace halo
