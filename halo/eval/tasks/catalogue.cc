#include "halo/eval/tasks/catalogue.h"

#include <fmt/ranges.h>

#include <algorithm>

#include "halo/base/check.h"
#include "halo/base/nearest.h"
#include "halo/eval/tasks/choice.h"
#include "halo/eval/tasks/exact.h"
#include "halo/eval/tasks/lambada.h"
#include "halo/eval/tasks/made/made.h"
#include "halo/eval/tasks/question_answering.h"
#include "halo/eval/tasks/written_choice.h"

namespace halo {
namespace {

using ItemMaker = TaskItem (*)(const ItemLine&);
using Names = std::vector<std::string>;

// Tasks whose items are lines of a file, by name.
const std::vector<std::pair<std::string, ItemMaker>>& file_tasks() {
  static const std::vector<std::pair<std::string, ItemMaker>> tasks = {
      {"hellaswag", choice_item},      {"arc_easy", choice_item},
      {"arc_challenge", choice_item},  {"piqa", choice_item},
      {"winogrande", winogrande_item}, {"boolq", choice_item},
      {"openbookqa", choice_item},     {"sciq", choice_item},
      {"social_iqa", choice_item},     {"commonsense_qa", choice_item},
      {"copa", choice_item},           {"lambada", lambada_item},
      {"squad_v1", question_item},     {"xquad_en", question_item},
      {"coqa", question_item},         {"drop", question_item},
      {"nq_open", question_item},      {"triviaqa", question_item},
      {"swde", extraction_item},       {"fda", extraction_item},
  };
  return tasks;
}

// A choice task in both modes: its name and this.
constexpr std::string_view kWritten = "_written";

const Names& choice_tasks() {
  static const Names names = {"hellaswag",  "arc_easy",       "arc_challenge", "piqa",
                              "winogrande", "boolq",          "openbookqa",    "sciq",
                              "social_iqa", "commonsense_qa", "copa"};
  return names;
}

Names written_tasks() {
  Names names;
  for (const std::string& name : choice_tasks()) names.push_back(name + std::string(kWritten));
  return names;
}

const std::vector<std::pair<std::string, Names>>& groups() {
  static const std::vector<std::pair<std::string, Names>> groups = {
      {"commonsense", choice_tasks()},
      {"commonsense_written", written_tasks()},
      {"recall", {"squad_v1", "xquad_en", "coqa", "drop"}},
      {"closed_book", {"nq_open", "triviaqa"}},
      {"ruler", made::ruler_names()},
  };
  return groups;
}

Names task_names() {
  Names names;
  for (const auto& [name, maker] : file_tasks()) names.push_back(name);
  std::ranges::copy(written_tasks(), std::back_inserter(names));
  std::ranges::copy(made::ruler_names(), std::back_inserter(names));
  std::ranges::copy(made::own_names(), std::back_inserter(names));
  names.insert(names.end(), {"addition", "copying", "long_writing"});
  return names;
}

}  // namespace

std::vector<std::string> expand_tasks(const std::vector<std::string>& asked) {
  const Names known = task_names();
  Names all = known, names;
  for (const auto& [name, tasks] : groups()) all.push_back(name);
  for (const std::string& name : asked) {
    const auto group = std::ranges::find(groups(), name, &std::pair<std::string, Names>::first);
    if (group == groups().end() && std::ranges::find(known, name) == known.end()) {
      throw_error("there is no task '{}'; did you mean '{}'?", name, nearest(name, all));
    }
    for (const std::string& task : group == groups().end() ? Names{name} : group->second) {
      if (std::ranges::find(names, task) == names.end()) names.push_back(task);
    }
  }
  return names;
}

std::string task_help() {
  std::string text = fmt::format("{}\nor groups of them:", fmt::join(task_names(), ", "));
  for (const auto& [name, tasks] : groups()) text += " " + name;
  return text;
}

Task make_task(const std::string& name, const TaskArgs& args, const LanguageModel& model) {
  constexpr int64_t kItems = 100;
  constexpr uint64_t kSeed = 1;
  Task task{name, {}};
  const bool written = name.ends_with(kWritten);
  const std::string file = written ? name.substr(0, name.size() - kWritten.size()) : name;
  const auto found =
      std::ranges::find(file_tasks(), file, &std::pair<std::string, ItemMaker>::first);
  if (found != file_tasks().end()) {
    read_items(args.data, file, args.limit, [&](const ItemLine& line) {
      TaskItem item = found->second(line);
      task.items.push_back(written ? written_choice_item(std::move(item), line) : std::move(item));
    });
    return task;
  }
  const int64_t count = args.limit > 0 ? args.limit : kItems;
  if (name == "addition") {
    task.items = addition_items(count, kSeed);
  } else if (name == "copying") {
    task.items = copying_items(count, kSeed);
  } else if (name == "long_writing") {
    task.items = long_writing_items(args.data, args.limit);
  } else {
    task.items = made::make_items(
        name, {args.data, args.lengths, count, kSeed},
        [&](const std::string& text) { return static_cast<int64_t>(model.encode(text).size()); });
  }
  return task;
}

}  // namespace halo
