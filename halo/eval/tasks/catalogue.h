// Every task by name.
#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "halo/eval/tasks/task.h"

namespace halo {

struct TaskArgs {
  std::vector<std::string> tasks;         // names of tasks and groups
  std::filesystem::path data;             // the folder of TASK.jsonl[.zst|.gz]
  std::vector<int64_t> lengths = {4096};  // of tasks made to a length: tokens, answer included
  int64_t limit = 0;  // items of each task and length; 0: all, or 100 of those made
};

// Groups become their tasks; each task once. An unknown name is an Error with the nearest known
// one.
std::vector<std::string> expand_tasks(const std::vector<std::string>& names);
std::string task_help();  // all names, for people

// Prompts that have to fill a length are made in the model's tokens.
Task make_task(const std::string& name, const TaskArgs& args, const LanguageModel& model);

}  // namespace halo
