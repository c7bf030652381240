// Asks models the items of tasks and keeps what comes back.
#pragma once

#include <filesystem>
#include <functional>
#include <string>
#include <vector>

#include "halo/engine/engine_recipe.h"
#include "halo/eval/tasks/answer_cache.h"
#include "halo/eval/tasks/catalogue.h"
#include "halo/eval/tasks/results.h"
#include "halo/runtime/machine.h"

namespace halo {

struct RunTasksOptions {
  std::vector<std::string> models;  // Hugging Face directories; differences are to the first
  std::filesystem::path samples;    // a JSON line an item and model; empty: none
  // A folder where answers are kept by what was asked of which model, and taken from; empty: none.
  std::filesystem::path cache;
  EngineRecipe engine;
};
// Called by all ranks, each of which loads the models; files are the first one's.
std::vector<ModelResult> run_tasks(const TaskArgs& args, const RunTasksOptions& options,
                                   const Machine& machine, Communicator& ranks = one_rank());

// One task of one model. `cache` may be null, and is on all ranks but the first; `on_item` sees
// every item and its outcome, in order; `on_batch` the number of items done. Called by all ranks,
// which deal the items among themselves, as many as are asked together: the same bits whatever
// their number, on each of them.
TaskResult run_task(LanguageModel& model, const Task& task, AnswerCache* cache,
                    const std::function<void(const TaskItem&, const Outcome&)>& on_item,
                    const std::function<void(size_t done)>& on_batch = {},
                    Communicator& ranks = one_rank());

}  // namespace halo
