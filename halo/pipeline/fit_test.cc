#include "halo/pipeline/fit.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "halo/base/settings_io.h"
#include "halo/pipeline/plan.h"
#include "tests/places.h"

namespace halo {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

constexpr double kGib = double(int64_t{1} << 30);

// A recipe of configs/recipes with the shapes of its teacher.
Recipe recipe_of(const std::string& size, std::vector<std::string> set = {}) {
  const std::string configs = (test::source_dir() / "configs").string();
  set.push_back("teacher=" + configs + "/model/qwen3-" + size);
  return read_recipe(configs + "/recipes/qwen3-" + size + ".toml", set);
}

json::object fit_of(const Recipe& recipe, double gib) {
  return check_fit(recipe, plan(recipe, 1),
                   {"a card", static_cast<int64_t>(gib * kGib), /*rates=*/1});
}

TEST(Fit, PublishedSizesOnOneCard) {
  EXPECT_TRUE(fit_of(recipe_of("1.7b"), 80).at("fits").as_bool());
  EXPECT_TRUE(fit_of(recipe_of("4b"), 139.8).at("fits").as_bool());
  const json::object fit = fit_of(recipe_of("8b"), 139.8);
  EXPECT_FALSE(fit.at("fits").as_bool());
  std::vector<std::string> stages;
  for (const json::value& stage : fit.at("stages").as_array()) {
    stages.emplace_back(stage.at("stage").as_string());
    EXPECT_TRUE(stage.at("settings").is_null());
    EXPECT_GT(stage.at("least_bytes").to_number<double>(), 139.8 * kGib);
  }
  EXPECT_THAT(stages, ElementsAre("distill", "finetune"));
  EXPECT_THAT(format_fit(fit), HasSubstr("--gpus"));
}

int64_t memory_of(const std::vector<std::string>& set, std::string_view name) {
  const json::object planned = plan(recipe_of("1.7b", set), 1);
  for (const json::value& stage : planned.at("stages").as_array()) {
    if (stage.at("stage").as_string() == name) return stage.at("memory_bytes").to_number<int64_t>();
  }
  return 0;
}

// A copy of masters, moments and bf16 weights waits on the host, where the CPU computes.
TEST(Fit, CheckpointsBehindTheTrainingTakeMemory) {
  const std::vector<std::string> set = {"run.device=cpu", "run.compute=bfloat16",
                                        "distill.checkpoint_every=100"};
  std::vector<std::string> async = set;
  async.push_back("run.async_checkpoints=true");
  const int64_t more = memory_of(async, "distill") - memory_of(set, "distill");
  EXPECT_GT(more, int64_t{14} * 1'500'000'000);
  EXPECT_LT(more, int64_t{14} * 2'500'000'000);
}

// The first rank trains all layers, beside a whole student, whatever run.shard says.
TEST(Fit, ACalibratedStartIsAStageOfThePlan) {
  const auto start = [](std::vector<std::string> set) {
    set.push_back("transfer.init=calibrated");
    const Recipe recipe = recipe_of("1.7b", set);
    const Capacity card = card_capacity("h200", recipe.run);
    return plan(recipe, card.rates, card.links).at("stages").as_array().front().as_object();
  };
  const json::object one = start({});
  EXPECT_EQ(one.at("stage").as_string(), "transfer");
  EXPECT_EQ(one.at("steps"), 300);
  EXPECT_EQ(one.at("tokens"), 300 * 2048);
  EXPECT_EQ(start({"run.ranks=4", "run.shard=full"}), one);
  EXPECT_GT(one.at("memory_bytes").to_number<double>(), 2 * 2 * 1.7e9);
  const json::object none = start({"transfer.calibration_steps=0"});
  EXPECT_EQ(none.at("stage").as_string(), "align");
}

TEST(Fit, ACalibratedStartThatDoesNotFitIsToldWhatWouldHelp) {
  const Recipe recipe = recipe_of("8b", {"transfer.init=calibrated"});
  EXPECT_THAT(format_fit(fit_of(recipe, 23.6)), HasSubstr("--set transfer.calibration_steps=0"));
}

TEST(Fit, CardsAreKnownByNameAndMemory) {
  const auto rate = [](const std::string& name, double gib) {
    return memory_rate_of(name, static_cast<int64_t>(gib * kGib));
  };
  EXPECT_EQ(rate("NVIDIA H200", 139.8), 4800);
  EXPECT_EQ(rate("NVIDIA H100 80GB HBM3", 79.2), 3350);
  EXPECT_EQ(rate("NVIDIA H100 NVL", 93.1), 0);
  EXPECT_EQ(rate("NVIDIA H100 PCIe", 79.2), 0);
  EXPECT_EQ(rate("NVIDIA A100-SXM4-40GB", 39.4), 1555);
  EXPECT_EQ(rate("NVIDIA A100-SXM4-80GB", 79.3), 2039);
  EXPECT_EQ(rate("NVIDIA GeForce RTX 3090", 23.7), 936);
  EXPECT_EQ(rate("NVIDIA GeForce RTX 3090 Ti", 23.7), 0);
  EXPECT_EQ(rate("NVIDIA GeForce RTX 4090", 23.5), 1008);
  EXPECT_EQ(rate("NVIDIA GeForce RTX 2060", 5.8), 0);
  EXPECT_EQ(rate("NVIDIA RTX A6000", 47.5), 0);
}

TEST(Fit, OnACpuTheRestOfTheStudentIsWholeOnEveryRank) {
  const auto align = [](const std::string& shard) {
    return double(memory_of(
        {"run.device=cpu", "run.compute=float32", "run.ranks=4", "run.shard=" + shard}, "align"));
  };
  // Of the teacher, and of masters, moments and gradients of all mixers, a quarter is left; of the
  // student all.
  EXPECT_GT(align("full"), 4 * (1.7e9 / 4 + 4 * 0.58e9 / 4 + 1.99e9));
}

TEST(Fit, TeachersInFp8HaveBothMatrices) {
  const int64_t more =
      memory_of({"distill.teacher_products=fp8"}, "distill") - memory_of({}, "distill");
  EXPECT_NEAR(double(more), 1.4e9, 0.05e9);
}

TEST(Fit, TeachersInFp8NeedACardSinceHopper) {
  const Recipe recipe = recipe_of("1.7b", {"distill.teacher_products=fp8"});
  const auto fit = [](const Recipe& of, const char* card) {
    const Capacity capacity = card_capacity(card, of.run);
    return check_fit(of, plan(of, capacity.rates), capacity);
  };
  const json::object old = fit(recipe, "a100-80gb");
  EXPECT_FALSE(old.at("fits").as_bool());
  EXPECT_THAT(format_fit(old), HasSubstr("distill.teacher_products: 'fp8' needs a GPU since"));
  EXPECT_TRUE(fit(recipe_of("1.7b"), "a100-80gb").at("lacks").is_null());
  EXPECT_TRUE(fit(recipe, "h200").at("fits").as_bool());
  EXPECT_EQ(lacking(recipe, "a machine of which only figures are given", 0), "");
}

TEST(Fit, WritingItsOwnTextsTakesMemory) {
  const auto memory_with = [](int64_t texts) {
    return memory_of(
        {"on_policy.tokens=4915200", "on_policy.sequence_length=512",
         "on_policy.micro_batch_rows=1", fmt::format("on_policy.tokens_per_step={}", 512 * texts)},
        "on-policy");
  };
  EXPECT_GT(memory_with(32), memory_with(1));
}

TEST(Fit, SaysWhatWouldFitAndThatDoes) {
  const Recipe recipe = recipe_of("1.7b");
  EXPECT_THAT(*settings_that_fit(recipe, "finetune", int64_t(50 * kGib)),
              ElementsAre("run.activation_checkpointing=true"));
  EXPECT_THAT(*settings_that_fit(recipe, "distill", int64_t(46 * kGib)),
              ElementsAre("distill.micro_batch_rows=6"));
  EXPECT_THAT(*settings_that_fit(recipe, "distill", int64_t(200 * kGib)), ElementsAre());
  const json::object fit = fit_of(recipe, 48);
  ASSERT_FALSE(fit.at("fits").as_bool());
  std::vector<std::string> set;
  for (const json::value& stage : fit.at("stages").as_array()) {
    for (const json::value& setting : stage.at("settings").as_array()) {
      set.emplace_back(setting.as_string());
    }
  }
  EXPECT_TRUE(fit_of(recipe_of("1.7b", set), 48).at("fits").as_bool());
  EXPECT_THAT(format_fit(fit), HasSubstr("--set run.activation_checkpointing=true"));
}

// An 8B teacher's masters and moments fit no card; those of two ranks do.
TEST(Fit, SeveralCardsShareWhatOneCannotHold) {
  Recipe recipe = recipe_of("8b");
  const Capacity card = card_capacity("h200", recipe.run);
  recipe.run.ranks = 2;
  recipe.run.shard = Shard::kNone;
  const auto settings = cheapest_setting(recipe, card);
  ASSERT_TRUE(settings);
  EXPECT_EQ(settings->front(), "run.shard=optimizer");
  for (const std::string& assignment : *settings) set_setting(recipe, assignment);
  const json::object planned = plan(recipe, card.rates, card.links);
  EXPECT_TRUE(check_fit(recipe, planned, card).at("fits").as_bool());
  const json::object& stage = planned.at("stages").as_array().back().as_object();
  EXPECT_GT(stage.at("communication_seconds").to_number<double>(), 0);
  const double seconds = stage.at("seconds_at_least").to_number<double>();
  EXPECT_NEAR(seconds, stage.at("flops").to_number<double>() / (2e9 * card.rates.matrix_gflops),
              1e-6 * seconds)
      << "sums and weights are on their way while others are computed";
  EXPECT_FALSE(cheapest_setting(recipe, card_capacity("rtx-3090", recipe.run)));
}

// Rows too long for one card, with everything else as sparing as it may be: two have one together.
TEST(Fit, RanksShareRowsThatOneCannotHold) {
  Recipe recipe = recipe_of("1.7b", {"finetune.sequence_length=524288"});
  const Capacity card = card_capacity("h200", recipe.run);
  EXPECT_FALSE(settings_that_fit(recipe, "finetune", card.usable_bytes()));
  recipe.run.ranks = 4;
  const auto settings = settings_that_fit(recipe, "finetune", card.usable_bytes());
  ASSERT_TRUE(settings);
  EXPECT_THAT(settings->back(), HasSubstr("finetune.context_ranks="));
  for (const std::string& assignment : *settings) set_setting(recipe, assignment);
  EXPECT_TRUE(check_fit(recipe, plan(recipe, card.rates, card.links), card).at("fits").as_bool());
}

// Ranks cannot share the states of learned decays (check_context_ranks): then nothing else fits.
TEST(Fit, RanksDoNotShareRowsWithLearnedDecays) {
  Recipe recipe = recipe_of("1.7b", {"finetune.sequence_length=524288", "run.ranks=4"});
  const int64_t bytes = card_capacity("h200", recipe.run).usable_bytes();
  ASSERT_TRUE(settings_that_fit(recipe, "finetune", bytes));
  recipe.transfer.learned_decay = true;
  EXPECT_FALSE(settings_that_fit(recipe, "finetune", bytes));
}

TEST(Fit, ThePlanSaysWhichSplitOfStageOneIsFaster) {
  const auto plan_of = [&](const std::string& split, const std::string& ranks) {
    Recipe recipe = recipe_of(
        "1.7b", {"align.split=" + split, "run.ranks=" + ranks, "align.micro_batch_rows=32"});
    const Capacity card = card_capacity("h200", recipe.run);
    return plan(recipe, card.rates, card.links);
  };
  const auto align = [&](const std::string& split, const std::string& ranks) {
    return plan_of(split, ranks).at("stages").as_array().front().as_object();
  };
  for (const char* ranks : {"2", "4"}) {
    const json::object rows = align("rows", ranks), layers = align("layers", ranks);
    const auto of = [](const json::object& stage, const char* key) {
      return stage.at(key).to_number<double>();
    };
    EXPECT_EQ(rows.at("split_seconds"), layers.at("split_seconds"));
    EXPECT_EQ(rows.at("split_seconds").at("rows"), rows.at("seconds_at_least"));
    EXPECT_EQ(layers.at("split_seconds").at("layers"), layers.at("seconds_at_least"));
    EXPECT_LT(of(layers, "memory_bytes_per_rank"), of(rows, "memory_bytes_per_rank"));
  }
  EXPECT_THAT(format_plan(plan_of("rows", "2")), HasSubstr("align: ranks divide rows: "));
  EXPECT_THAT(format_plan(plan_of("rows", "2")), HasSubstr("\" is faster\n"));
  Recipe odd = recipe_of("1.7b", {"run.ranks=2", "align.micro_batch_rows=9"});
  const json::object planned = plan(odd, 1e6).at("stages").as_array().front().as_object();
  EXPECT_TRUE(planned.at("split_seconds").at("layers").is_null());
  EXPECT_FALSE(planned.at("split_seconds").at("rows").is_null());
}

// What is exchanged takes time; a rank has half of a row's activations.
TEST(Fit, TwoRanksOfARowNeedLessMemoryAndSendMore) {
  const auto finetune = [&](const std::string& context_ranks) {
    Recipe recipe = recipe_of("1.7b", {"finetune.context_ranks=" + context_ranks, "run.ranks=2"});
    const Capacity card = card_capacity("h200", recipe.run);
    return plan(recipe, card.rates, card.links).at("stages").as_array().back().as_object();
  };
  const json::object one = finetune("1"), two = finetune("2");
  const auto of = [](const json::object& stage, const char* key) {
    return stage.at(key).to_number<double>();
  };
  EXPECT_LT(of(two, "memory_bytes_per_rank"), of(one, "memory_bytes_per_rank"));
  EXPECT_GT(of(two, "communication_seconds"), of(one, "communication_seconds"));
  EXPECT_LT(of(two, "seconds_at_least"), 1.05 * of(one, "seconds_at_least"));
}

}  // namespace
}  // namespace halo
