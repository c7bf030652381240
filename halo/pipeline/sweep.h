// Many runs of one recipe with some settings varied: a folder with a run a cell, and a table.
#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "halo/base/json.h"
#include "halo/base/settings.h"

namespace halo {

// Section `sweep` of a sweep's file.
struct SweepRecipe {
  std::vector<std::string> set, axes, cases;

  void settings(Settings& s) {
    s("set", set, {.help = "section.key=value of every cell, over the recipe"});
    s("axes", axes,
      {.help = "KEY=[VALUE, VALUE, ...]: a cell for each value of each axis, in all combinations"});
    s("cases", cases,
      {.help = "NAME: KEY=VALUE; KEY=VALUE: one more axis, whose values set several keys at once"});
  }
};

// SWEEP.toml: `recipe`, the path of the recipe that is varied, from here or from the file's folder,
// and [sweep].
struct SweepFile {
  std::string recipe;
  SweepRecipe sweep;

  void settings(Settings& s) {
    s("recipe", recipe, {.help = "recipe that is varied"});
    s("sweep", sweep, {});
  }
};

struct SweepCell {
  std::string name;              // of its folder: "match,distill.learning_rate=1e-4,run.seed=1"
  std::vector<std::string> set;  // assignments over the recipe
  std::string group;             // the name without run.seed: cells of one group are averaged
};
// An Error that says which axis or case cannot be read, or that two cells are the same.
std::vector<SweepCell> sweep_cells(const SweepRecipe& sweep);

// How many of the stages that `cell` wants can be taken from a run of `other`: those before the
// first that reads a setting in which they differ. Both are assignments over the recipe.
size_t shared_stages(const std::filesystem::path& recipe, const SweepCell& cell,
                     const SweepCell& other);

struct SweepArgs {
  std::filesystem::path file, out;
  std::vector<std::string> set = {};  // over the file's `set`; what is varied goes on top
  int64_t jobs = 1;                   // runs at once
  std::string program;                // halo
};
// Runs the cells that are not done yet, each in OUT/NAME by a process of its own (what it prints is
// in OUT/NAME.log), beginning with the stages that an earlier cell has in common with it. A cell
// that failed, by a gate or because it diverged, stays as it is and the others go on. Writes
// OUT/sweep.json and OUT/sweep.md, and returns the former: {"cells": [{"name", "group", "set",
// "state", "figures"}], "groups": [{"name", "n", "figures": {FIGURE: {"mean", "stderr"}}}]}.
json::object sweep(const SweepArgs& args);

// A Markdown table of the groups, and under it the cells that are not done, each with what its
// STATUS says: where and why it failed, and which checkpoint it left.
std::string sweep_table(const json::object& result);

}  // namespace halo
