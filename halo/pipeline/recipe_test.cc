#include "halo/pipeline/recipe.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>

#include "halo/base/settings_io.h"
#include "halo/pipeline/pretrain.h"
#include "halo/pipeline/synthesize.h"
#include "tests/testing.h"

namespace halo {
namespace {

using testing::HasSubstr;

template <class T>
void expect_bounds(T object) {
  for (const Setting& setting : settings_of(object).all()) {
    const bool number = std::holds_alternative<int64_t*>(setting.value) ||
                        std::holds_alternative<double*>(setting.value) ||
                        std::holds_alternative<std::vector<int64_t>*>(setting.value) ||
                        std::holds_alternative<std::vector<double>*>(setting.value);
    if (!number) continue;
    EXPECT_TRUE(std::isfinite(setting.about.min) && std::isfinite(setting.about.max))
        << setting.key << " has no bounds";
  }
}

TEST(Recipe, EveryNumberHasBounds) {
  expect_bounds(Recipe());
  expect_bounds(PretrainRecipe());
  expect_bounds(SynthesizeArgs());
}

// So that what is written is read again.
TEST(Recipe, DefaultsLieWithinTheirBounds) {
  Recipe recipe;
  read_toml(recipe, to_toml(Recipe()), "defaults");
  EXPECT_TRUE(differences(recipe, Recipe()).empty());
  PretrainRecipe pretrain;
  read_toml(pretrain, to_toml(PretrainRecipe()), "defaults");
  EXPECT_TRUE(differences(pretrain, PretrainRecipe()).empty());
}

TEST(Recipe, AResumeMayChangeWhatHasNoEffect) {
  Recipe before, now;
  now.run.threads = 7;
  now.run.activation_checkpointing = true;
  now.run.cuda_graphs = false;
  now.align.checkpoint_every = 9;
  now.gates.distill_kl = 3;
  for (const Difference& d : differences(before, now)) EXPECT_EQ(d.effect, Effect::kNone) << d.key;
  now = before;
  now.run.seed = 2;
  now.run.deterministic = false;
  now.distill.learning_rate = 0.5;
  now.eval.haystacks = 3;
  const std::vector<Difference> found = differences(before, now);
  EXPECT_EQ(found.size(), 4u);
  for (const Difference& d : found) EXPECT_NE(d.effect, Effect::kNone) << d.key;
}

TEST(Recipe, OldWordsAreRead) {
  Recipe recipe;
  read_toml(recipe,
            "[data]\npacking = 'paper'\n[transfer]\ninit = 'paper'\n[select]\nrule = 'halo'\n"
            "[align]\nschedule = 'paper'\nkeep = 3\n[distill]\nschedule = 'halo'",
            "r.toml");
  EXPECT_EQ(recipe.data.packing, Packing::kConcat);
  EXPECT_EQ(recipe.transfer.init, TransferInit::kRandom);
  EXPECT_EQ(recipe.select.rule, SelectionRule::kRecallRatio);
  EXPECT_EQ(recipe.align.schedule, RateCurve::kWarmupCosineLate);
  EXPECT_EQ(recipe.align.keep_checkpoints, 3);
  EXPECT_EQ(recipe.distill.schedule, RateCurve::kWarmupCosine);
}

TEST(Recipe, ThreadsBeyondReasonAreRefused) {
  Recipe recipe;
  EXPECT_EQ(test::error_of([&] { set_setting(recipe, "run.threads=1000000"); }),
            "--set: run.threads: expected 0 to 1024, got 1000000");
}

}  // namespace
}  // namespace halo
