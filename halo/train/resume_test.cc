#include "halo/train/resume.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "halo/base/settings_io.h"
#include "tests/testing.h"

namespace halo {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

TrainState state_of(const TrainRecipe& recipe) {
  TrainState state;
  state.recipe = to_json(recipe);
  state.recipe["cross_entropy_share"] = 0.5;
  return state;
}

std::vector<std::string> resumed(const TrainState& was, const TrainRecipe& now) {
  return check_resume(was, state_of(now), "step-4");
}

// What the version before wrote: other words for a schedule, another name for keep_checkpoints.
TEST(CheckResume, ReadsOldRecords) {
  TrainState was = state_of({});
  was.recipe["schedule"] = "halo";
  was.recipe.erase("keep_checkpoints");
  was.recipe["keep"] = 5;
  EXPECT_THAT(resumed(was, {}), ElementsAre());
  was.recipe["schedule"] = "paper";
  EXPECT_THAT(resumed(was, {}), ElementsAre(HasSubstr("schedule \"warmup-cosine\"")));
}

TEST(CheckResume, WhatASettingChangesDecides) {
  const TrainState was = state_of({});
  EXPECT_THAT(resumed(was, {.checkpoint_every = 3, .keep_checkpoints = 9, .diverged_factor = 0}),
              ElementsAre());
  EXPECT_THAT(resumed(was, {.micro_batch_rows = 2, .learning_rate = 0.5}),
              ElementsAre(HasSubstr("micro_batch_rows 2"), HasSubstr("learning_rate 0.5")));
  EXPECT_THAT(test::error_of([&] { resumed(was, {.tokens_per_step = 512}); }),
              HasSubstr("was made with tokens_per_step 16384, this run has 512"));
  TrainState other = was;
  other.recipe["cross_entropy_share"] = 0.25;
  EXPECT_THAT(resumed(other, {}), ElementsAre(HasSubstr("cross_entropy_share")));
}

TEST(CheckResume, TheComputeTypeIsSaid) {
  TrainState was = state_of({}), now = was;
  now.compute = "bfloat16";
  EXPECT_THAT(check_resume(was, now, "step-4"), ElementsAre());  // was: not recorded
  was.compute = "float32";
  EXPECT_THAT(check_resume(was, now, "step-4"),
              ElementsAre(HasSubstr("compute bfloat16 where the checkpoint has float32")));
}

}  // namespace
}  // namespace halo
