#include "halo/pipeline/stage.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>

#include "halo/base/files.h"
#include "tests/testing.h"

namespace halo {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

// As a finished stage leaves it.
void finish(const fs::path& run, const std::string& stage) {
  fs::create_directories(run / stage / "step-0");
  write_file(run / stage / "result.json", "{}");
}

TEST(Stage, InputsAreThoseOfTheNearestStageThatIsWanted) {
  const test::Folder run;
  for (const char* stage : {"align", "align-attention", "distill", "finetune"}) {
    finish(run.path(), stage);
  }
  const auto inputs = [&](const std::string& stage, const Recipe& recipe) {
    const auto all = pipeline_stages();
    return args_in_run(all, find_stage(all, stage), recipe, run.path()).inputs;
  };
  Recipe recipe;
  EXPECT_THAT(inputs("scale", recipe), ElementsAre(run / "finetune/step-0"));
  recipe.on_policy.tokens = 1024;
  finish(run.path(), "on-policy");
  EXPECT_THAT(inputs("on-policy", recipe), ElementsAre(run / "finetune/step-0"));
  EXPECT_THAT(inputs("scale", recipe), ElementsAre(run / "on-policy/step-0"));
  recipe.on_policy.tokens = 0;
  EXPECT_THAT(inputs("select", recipe), ElementsAre(run / "align/step-0", ""));
  EXPECT_THAT(inputs("transfer", recipe), ElementsAre());
  recipe.finetune.tokens = 0;
  recipe.align_attention.tokens = 1024;
  EXPECT_THAT(inputs("scale", recipe), ElementsAre(run / "distill/step-0"));
  EXPECT_THAT(inputs("select", recipe),
              ElementsAre(run / "align/step-0", run / "align-attention/step-0"));
  EXPECT_THAT(test::error_of([&] { inputs("distill", recipe); }), HasSubstr("halo select --run"));
}

TEST(Stage, GatesHaveTheirKeys) {
  EXPECT_EQ(gate_key(find_stage(pipeline_stages(), "distill")), "gates.distill_kl");
  EXPECT_EQ(gate_key(find_stage(pipeline_stages(), "transfer")), "");
}

TEST(Stage, ReadsItsSectionTheMachineAndWhatItsRowSays) {
  const Stage& align = find_stage(pipeline_stages(), "align-attention");
  for (const char* key : {"align_attention.clip", "run.seed", "transfer.init", "data.packing",
                          "align.sequence_length", "eval.held_out"}) {
    EXPECT_TRUE(reads(align, key)) << key;
  }
  for (const char* key : {"align.clip", "eval.haystacks", "gates.distill_kl", "distill.tokens",
                          "data.answer_weight"}) {
    EXPECT_FALSE(reads(align, key)) << key;
  }
}

TEST(Stage, UnknownNamesTheNearest) {
  EXPECT_EQ(test::error_of([] { find_stage(pipeline_stages(), "aline"); }),
            "there is no stage 'aline'; did you mean 'align'?");
}

// What trains has a name for its loss, and a cost at the recipe's lengths.
TEST(Stage, RowsAreWhole) {
  const Recipe recipe;
  for (const Stage& stage : pipeline_stages()) {
    EXPECT_FALSE(stage.help.empty()) << stage.name;
    EXPECT_TRUE(stage.run) << stage.name;
    for (const StageInput& input : stage.inputs) {
      for (const std::string& from : input.from) find_stage(pipeline_stages(), from);
    }
    Recipe defaults;
    const Settings all = settings_of(defaults);
    for (const std::string& name : stage.reads) {
      EXPECT_TRUE(std::ranges::any_of(all.all(),
                                      [&](const Setting& setting) {
                                        return setting.key == name ||
                                               setting.key.starts_with(name + ".");
                                      }))
          << stage.name << " reads " << name;
    }
    EXPECT_EQ(gate_key(stage).empty(), stage.gate == nullptr) << stage.name;
    if (!stage.training) continue;
    EXPECT_FALSE(stage.training->loss.empty() || stage.training->unit.empty()) << stage.name;
    EXPECT_GT(stage.training->recipe(recipe).sequence_length, 0) << stage.name;
    EXPECT_TRUE(stage.training->student && stage.training->step && stage.training->cost);
  }
}

}  // namespace
}  // namespace halo
