#include "halo/eval/tasks/catalogue.h"

#include <fmt/ranges.h>

#include <algorithm>

#include "halo/base/check.h"
#include "halo/base/nearest.h"
#include "halo/chat/chat_template.h"
#include "halo/eval/tasks/choice.h"
#include "halo/eval/tasks/exact.h"
#include "halo/eval/tasks/instructions.h"
#include "halo/eval/tasks/lambada.h"
#include "halo/eval/tasks/made/made.h"
#include "halo/eval/tasks/question_answering.h"
#include "halo/eval/tasks/text_task.h"
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
      {"ruler2", made::ruler2_names()},
  };
  return groups;
}

Names task_names() {
  Names names;
  for (const auto& [name, maker] : file_tasks()) names.push_back(name);
  std::ranges::copy(written_tasks(), std::back_inserter(names));
  std::ranges::copy(made::ruler_names(), std::back_inserter(names));
  std::ranges::copy(made::ruler2_names(), std::back_inserter(names));
  std::ranges::copy(made::own_names(), std::back_inserter(names));
  std::ranges::copy(TextTask::names(), std::back_inserter(names));
  names.insert(names.end(), {"addition", "copying", "long_writing", "instructions"});
  return names;
}

// What the template makes of one turn of a user, up to where the answer begins.
std::string user_turn(const ModelChat& chat, const std::string& text) {
  ChatOptions options;
  options.add_generation_prompt = true;
  options.now = {};  // some templates write the date, and the same item has the same prompt always
  return chat.render({json::object{{"role", "user"}, {"content", text}}}, options);
}

// The file of a choice task in both modes is that of the task.
bool is_written(const std::string& name) {
  return name.ends_with(kWritten);
}
std::string file_of(const std::string& name) {
  return is_written(name) ? name.substr(0, name.size() - kWritten.size()) : name;
}

TaskItem item_of(ItemMaker make, bool written, const ItemLine& line) {
  TaskItem item = make(line);
  return written ? written_choice_item(std::move(item), line) : item;
}

void add_example(const TaskItem& item, Example& shots) {
  shots.scored += item.solved.scored + "\n\n";
  shots.generated += item.solved.generated + "\n\n";
}

void put_in_front(const Example& shots, TaskItem& item) {
  for (ScoreRequest& request : item.scored) request.prompt = shots.scored + request.prompt;
  for (GenerateRequest& request : item.generated) {
    request.prompt = shots.generated + request.prompt;
  }
}

std::vector<TaskItem> read_task(const TaskArgs& args, const std::string& file, ItemMaker make,
                                bool written) {
  const std::string shots_file = file + ".shots";
  const bool own_shots = !has_items(args.data, shots_file);
  Example shots;
  int64_t left = args.shots;
  if (left > 0 && !own_shots) {
    read_items(args.data, shots_file, left, [&](const ItemLine& line) {
      add_example(item_of(make, written, line), shots);
      --left;
    });
    if (left > 0) {
      throw_error("{}: {} has {} items, --shots asks for {}", file, shots_file, args.shots - left,
                  args.shots);
    }
  }
  std::vector<TaskItem> items;
  read_items(args.data, file, args.limit > 0 ? args.limit + left : 0, [&](const ItemLine& line) {
    TaskItem item = item_of(make, written, line);
    if (left > 0) {
      add_example(item, shots);
      --left;
      return;
    }
    if (args.shots > 0) put_in_front(shots, item);
    items.push_back(std::move(item));
  });
  if (items.empty()) {
    throw_error("{}: no item is left to ask beside --shots {}; give fewer, or a file {}.jsonl",
                file, args.shots, shots_file);
  }
  return items;
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

bool is_made_to_length(const std::string& task) {
  for (const Names& names : {made::ruler_names(), made::ruler2_names(), made::own_names()}) {
    if (std::ranges::find(names, task) != names.end()) return true;
  }
  return false;
}

std::vector<std::filesystem::path> task_files(const Names& names,
                                              const std::filesystem::path& data) {
  std::vector<std::filesystem::path> files;
  for (const std::string& name : expand_tasks(names)) {
    const std::string file = file_of(name);
    const auto found =
        std::ranges::find(file_tasks(), file, &std::pair<std::string, ItemMaker>::first);
    if (found != file_tasks().end()) files.push_back(find_items(data, file));
  }
  return files;
}

std::vector<std::filesystem::path> hay_files(const std::filesystem::path& data) {
  std::vector<std::filesystem::path> files;
  for (const char* name : {"essays", "squad_v1"}) {
    if (has_items(data, name)) files.push_back(find_items(data, name));
  }
  return files;
}

Task make_task(const std::string& name, const TaskArgs& args, const LanguageModel& model) {
  constexpr int64_t kItems = 100;
  constexpr int64_t kInstructions = 300;
  Task task{name, {}};
  const bool written = is_written(name);
  const std::string file = file_of(name);
  const auto found =
      std::ranges::find(file_tasks(), file, &std::pair<std::string, ItemMaker>::first);
  if (found != file_tasks().end()) {
    task.items = read_task(args, file, found->second, written);
    return task;
  }
  if (args.shots > 0) throw_error("task {}: its items are made, --shots has none of them", name);
  const int64_t count = args.limit > 0 ? args.limit : kItems;
  if (name == "addition") {
    task.items = addition_items(count, args.seed);
  } else if (name == "copying") {
    task.items = copying_items(count, args.seed);
  } else if (name == "instructions") {
    const ModelChat chat(model.directory());
    task.items = instruction_items(args.limit > 0 ? args.limit : kInstructions, args.seed,
                                   [&](const std::string& text) { return user_turn(chat, text); });
  } else if (name == "long_writing") {
    task.items = long_writing_items(args.data, args.limit);
  } else {
    task.items = made::make_items(
        name, {args.data, args.lengths, count, args.seed},
        [&](const std::string& text) { return static_cast<int64_t>(model.encode(text).size()); });
  }
  return task;
}

}  // namespace halo
