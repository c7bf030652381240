#include "halo/pipeline/sweep.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "halo/base/files.h"
#include "halo/base/settings_io.h"
#include "halo/pipeline/checks.h"
#include "halo/pipeline/recipe.h"
#include "tests/places.h"
#include "tests/testing.h"

namespace halo {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

std::vector<std::string> names(const std::vector<SweepCell>& cells) {
  std::vector<std::string> out;
  for (const SweepCell& cell : cells) out.push_back(cell.name);
  return out;
}

TEST(SweepCells, AreAllCombinations) {
  const auto cells = sweep_cells({{"gates.distill_kl=9"},
                                  {"distill.learning_rate = [1e-4, 1e-3]", "run.seed=[1, 2]"},
                                  {"paper: transfer.init=paper", "match:"}});
  ASSERT_EQ(cells.size(), 8u);
  EXPECT_EQ(cells[0].name, "paper,distill.learning_rate=1e-4,run.seed=1");
  EXPECT_EQ(cells[0].group, "paper,distill.learning_rate=1e-4");
  EXPECT_THAT(cells[0].set, ElementsAre("gates.distill_kl=9", "transfer.init=paper",
                                        "distill.learning_rate=1e-4", "run.seed=1"));
  EXPECT_EQ(cells[7].name, "match,distill.learning_rate=1e-3,run.seed=2");
  EXPECT_EQ(cells[6].group, cells[7].group);
  // Lists and quoted words are values too.
  EXPECT_THAT(names(sweep_cells({{}, {R"(select.layers=[[0, 1], [2]])"}, {}})),
              ElementsAre("select.layers=0,1", "select.layers=2"));
  EXPECT_EQ(sweep_cells({{}, {R"(run.device=["cpu"])"}, {}})[0].set[0], R"(run.device="cpu")");
}

TEST(SweepCells, SayWhatCannotBeRead) {
  const auto error = [](std::vector<std::string> axes, std::vector<std::string> cases) {
    return test::error_of([&] { sweep_cells({{}, axes, cases}); });
  };
  EXPECT_THAT(error({}, {}), HasSubstr("nothing is varied"));
  EXPECT_THAT(error({"run.seed"}, {}), HasSubstr("'run.seed' is not KEY=[VALUE"));
  EXPECT_THAT(error({"run.seed=[1,]"}, {}), HasSubstr("has an empty value"));
  EXPECT_THAT(error({"run.seed=[1,1]"}, {}), HasSubstr("two cells are 'run.seed=1'"));
  EXPECT_THAT(error({}, {"transfer.init=paper"}), HasSubstr("is not NAME: KEY=VALUE"));
}

TEST(SharedStages, EndAtTheFirstThatReadsADifference) {
  const test::Folder folder;
  const auto recipe = folder / "recipe.toml";
  write_file(recipe,
             "teacher = \"t\"\n[data]\nshards = [\"s\"]\n[align_attention]\ntokens = 10_000_000\n"
             "[finetune]\ntokens = 0\n");
  const auto shared = [&](std::vector<std::string> a, std::vector<std::string> b) {
    return shared_stages(recipe, {"a", std::move(a), ""}, {"b", std::move(b), ""});
  };
  // transfer, align, align-attention, select, distill, scale
  EXPECT_EQ(shared({}, {}), 6u);
  EXPECT_EQ(shared({"distill.learning_rate=1e-3"}, {"distill.learning_rate=1e-4"}), 4u);
  EXPECT_EQ(shared({"align.tokens=10_000_000"}, {}), 1u);
  EXPECT_EQ(shared({"align_attention.tokens=0"}, {}), 2u) << "another list of stages";
  EXPECT_EQ(shared({"run.seed=2"}, {}), 0u);
  EXPECT_EQ(shared({"gates.distill_kl=9"}, {}), 6u);
}

// Those of configs/sweeps: each cell is what all its stages would take.
TEST(ShippedSweeps, CanBeRun) {
  const std::filesystem::path here = std::filesystem::current_path();
  std::filesystem::current_path(test::source_dir());
  int64_t checked = 0;
  for (const auto& entry : std::filesystem::recursive_directory_iterator("configs/sweeps")) {
    if (!entry.is_regular_file()) continue;
    const auto file = read_settings_file<SweepFile>(entry.path(), {});
    for (const SweepCell& cell : sweep_cells(file.sweep)) {
      const Recipe recipe = read_recipe(file.recipe, cell.set);
      if (recipe.run.seed != 1) continue;
      EXPECT_NO_THROW(check_ahead(recipe, Missing::kRefused)) << entry.path() << ": " << cell.name;
      ++checked;
    }
  }
  std::filesystem::current_path(here);
  EXPECT_GT(checked, 40);
}

TEST(SweepTable, HasARowAGroup) {
  json::value result = parse_json(R"({"cells": [], "groups": [
      {"name": "a", "n": 2, "not_finished": 0, "figures": {"KL": {"mean": 0.25, "stderr": 0.05}}},
      {"name": "b", "n": 1, "not_finished": 1, "figures": {"x": {"mean": 3, "stderr": null}}}]})",
                                  "result");
  EXPECT_EQ(sweep_table(result.as_object()),
            "| cell | runs | not finished | KL | x |\n|---|---|---|---|---|\n"
            "| a | 2 | 0 | 0.25 \u00b1 0.05 | - |\n| b | 1 | 1 | - | 3 |\n");
  result.at("cells") = {{{"name", "a,run.seed=1"}, {"state", "done"}},
                        {{"name", "b"}, {"state", "failed distill: diverged at step 60"}},
                        {{"name", "c"}, {"state", ""}}};
  EXPECT_THAT(sweep_table(result.as_object()),
              testing::EndsWith("| 1 | 1 | - | 3 |\n\n- b: failed distill: diverged at step 60\n"
                                "- c: not begun\n"));
}

}  // namespace
}  // namespace halo
