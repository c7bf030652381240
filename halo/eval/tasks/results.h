// Figures of tasks over their items, for one model and beside another's: what `halo eval --tasks`
// prints.
#pragma once

#include <string>
#include <vector>

#include "halo/eval/statistics.h"
#include "halo/eval/tasks/task.h"

namespace halo {

// A figure over the items that have it.
struct FigureResult {
  std::string name;
  Estimate estimate;             // standard errors with n - 1; of exp(mean) by the delta method
  std::vector<std::string> ids;  // of the items
  std::vector<double> parts;  // the estimate is their mean but for a constant, so that models can
                              // be paired by item
};

struct TaskResult {
  std::string task;
  std::vector<FigureResult> figures;  // in the order in which items name them
};

struct ModelResult {
  std::string model;
  std::vector<TaskResult> tasks;
};

// `ids` and `outcomes` are of the items.
TaskResult summarise(const std::string& task, const std::vector<std::string>& ids,
                     const std::vector<Outcome>& outcomes);

// a - b with the standard error of the difference over the same items. An Error where the items
// differ.
Estimate paired_difference(const FigureResult& a, const FigureResult& b);

// {"models": [{"model", "tasks": {NAME: {FIGURE: {"value", "stderr", "n", and of all models but the
// first "difference", "difference_stderr" to it, where it was asked the same items}}}}]}
json::object results_to_json(const std::vector<ModelResult>& models);
// A line a figure, a column a model.
std::string results_to_text(const std::vector<ModelResult>& models);

}  // namespace halo
