// HALO's selection as published (hypenet.md 2.3): the teacher with one layer swapped at a time,
// asked recall and commonsense tasks. Scores stay item by item, so that they can be resampled.
#pragma once

#include <string>
#include <vector>

#include "halo/eval/tasks/layer_sweep.h"
#include "halo/stages/select.h"

namespace halo {

// A task's figure that layers are chosen by: what a recall task contains, a choice task's acc_norm
// or acc, else the first one.
struct SweptTask {
  std::string name;
  double chance = 0;                       // what guessing has
  std::vector<std::vector<double>> items;  // by layer that is swapped, then of the teacher itself

  // Means over items, each as often as `times` says; empty: once.
  std::vector<double> means(const std::vector<double>& times) const;
};

struct TaskSweep {
  std::vector<SweptTask> recall, commonsense;
  SweepCost cost;

  // The rule's score of each layer. `draw`: a number of the bootstrap, whose items are drawn anew;
  // negative: all items.
  std::vector<double> scores(uint64_t seed, int64_t draw) const;
  // layer,TASK,... with a row a layer and the teacher's, "original": what `halo select --scores`
  // reads.
  std::string csv() const;
  // {"tasks": [{"name", "kind", "items", "chance", "teacher", "swapped": [by layer]}], "cost"}
  json::object to_json() const;
};

// `aligned`: every layer lightning. An Error that names a task of which the teacher does no better
// than guessing. Called by all ranks, which deal the items among themselves.
TaskSweep sweep_tasks(const SelectRecipe& recipe, const StageContext& context,
                      const DecoderWeights& aligned);

// The files of the tasks; an Error where a task is unknown or its file is not there.
std::vector<fs::path> select_task_files(const SelectRecipe& recipe);

}  // namespace halo
