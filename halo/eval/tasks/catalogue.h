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
  // Solved items in front of each, a blank line between them: the first of TASK.shots.jsonl (or
  // .zst, .gz), or where there is none those of the task's own file, which then are not asked.
  int64_t shots = 0;
  uint64_t seed = 1;  // of what is made
};

// Groups become their tasks; each task once. An unknown name is an Error with the nearest known
// one.
std::vector<std::string> expand_tasks(const std::vector<std::string>& names);
std::string task_help();  // all names, for people

// Whether its items are made to a length (made.h).
bool is_made_to_length(const std::string& task);

// The files that tasks and groups are read from; of a task that is made, none. An Error where one
// is not there.
std::vector<std::filesystem::path> task_files(const std::vector<std::string>& names,
                                              const std::filesystem::path& data);

// Those of the files there that tasks made to a length are made from.
std::vector<std::filesystem::path> hay_files(const std::filesystem::path& data);

// Prompts that have to fill a length are made in the model's tokens.
Task make_task(const std::string& name, const TaskArgs& args, const LanguageModel& model);

}  // namespace halo
