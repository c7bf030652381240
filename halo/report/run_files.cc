#include "halo/report/run_files.h"

#include <algorithm>
#include <cmath>
#include <functional>
#include <sstream>

#include "halo/base/check.h"
#include "halo/base/files.h"

namespace halo {
namespace {

namespace fs = std::filesystem;

JsonFile read_object(const fs::path& path) {
  if (!fs::exists(path)) return {};
  json::value value = read_json(path);
  if (!value.is_object()) throw_error("{}: expected a JSON object", path.string());
  return {path.string(), std::move(value.get_object())};
}

// The whole lines of a file of one object a line; the last one may be half-written by a run that is
// still going or was killed.
void for_each_line(const fs::path& path, const std::function<void(json::object&&)>& use) {
  if (!fs::exists(path)) return;
  const std::string text = read_file(path);
  for (size_t begin = 0, end; (end = text.find('\n', begin)) != std::string::npos;
       begin = end + 1) {
    if (end == begin) continue;
    json::value line =
        parse_json(std::string_view(text).substr(begin, end - begin), path.string(), begin);
    if (!line.is_object()) throw ParseError(path.string(), begin, "expected a JSON object a line");
    use(std::move(line.get_object()));
  }
}

Metrics read_metrics(const fs::path& path) {
  Metrics metrics;
  for_each_line(path, [&](json::object&& line) {
    for (const auto& [key, value] : line) {
      if (!value.is_number() && !value.is_bool()) continue;
      std::vector<double>& column = metrics.columns[std::string(key)];
      column.resize(metrics.rows, kNoNumber);
      column.push_back(value.is_bool() ? double(value.get_bool()) : value.to_number<double>());
    }
    ++metrics.rows;
  });
  for (auto& [name, column] : metrics.columns) column.resize(metrics.rows, kNoNumber);
  return metrics;
}

// Lines of task-samples.jsonl that have an answer, the first three of a task and model.
JsonFile read_answers(const fs::path& path) {
  constexpr int kShown = 3;
  std::map<std::string, int> seen;
  json::array answers;
  const std::string file = path.string();
  for_each_line(path, [&](json::object&& line) {
    const JsonView sample(line, file);
    if (!sample.has("answer")) return;
    if (seen[sample.text("task") + "\n" + sample.text("model")]++ < kShown) {
      answers.push_back(std::move(line));
    }
  });
  if (answers.empty()) return {};
  return {file, {{"answers", std::move(answers)}}};
}

StageFiles read_stage(const fs::path& folder, const std::string& name) {
  StageFiles stage;
  stage.name = name;
  stage.started = fs::exists(folder / name);
  stage.result = read_object(folder / name / "result.json");
  if (stage.result.path.empty()) {
    stage.result = read_object(folder / name / "failed.json");
    stage.failed = !stage.result.path.empty();
  }
  stage.metrics = read_metrics(folder / name / "metrics.jsonl");
  for_each_line(folder / name / "events.jsonl",
                [&](json::object&& line) { stage.events.push_back(std::move(line)); });
  return stage;
}

// Those that the run said it would do and those that the summary counts, in their order; then what
// else looks like a stage's folder.
std::vector<std::string> stage_names(const fs::path& folder, const JsonFile& environment,
                                     const JsonFile& summary) {
  std::vector<std::string> names;
  const auto add = [&](std::string name) {
    if (std::ranges::find(names, name) == names.end()) names.push_back(std::move(name));
  };
  for (const JsonView& stage : environment.view().objects("stages")) add(stage.text("name"));
  if (const JsonView tokens = summary.view().object("tokens_per_stage")) {
    for (const auto& [name, count] : tokens.members()) add(name);
  }
  std::vector<std::string> others;
  for (const auto& entry : fs::directory_iterator(folder)) {
    const auto has = [&](const char* file) { return fs::exists(entry.path() / file); };
    if (has("result.json") || has("failed.json") || has("metrics.jsonl") || has("selection.json") ||
        has("scale.json")) {
      others.push_back(entry.path().filename().string());
    }
  }
  std::ranges::sort(others);
  for (std::string& name : others) add(std::move(name));
  return names;
}

// STATUS: what it says, and on a line of its own which files are "stale: FILE FILE".
void read_status(const fs::path& path, RunFiles& run) {
  if (!fs::exists(path)) return;
  std::istringstream lines(read_file(path));
  std::getline(lines, run.status);
  const std::string stale = "stale: ";
  for (std::string line; std::getline(lines, line);) {
    if (line.starts_with(stale)) run.stale = line.substr(stale.size());
  }
}

// {STAGE: seconds}, or of earlier versions {"seconds"}, in all.
double read_seconds(const JsonFile& file) {
  double sum = kNoNumber;
  for (const auto& [key, value] : file.root) {
    const double seconds = file.view().number(key);
    if (std::isfinite(seconds)) sum = std::isfinite(sum) ? sum + seconds : seconds;
  }
  return sum;
}

}  // namespace

const json::value* JsonView::find(std::string_view key) const {
  const json::value* value = object_ ? object_->if_contains(key) : nullptr;
  return value && !value->is_null() ? value : nullptr;
}

const json::array* JsonView::array(std::string_view key) const {
  const json::value* value = find(key);
  if (value && !value->is_array()) throw_error("{}: key '{}' must be an array", *file_, key);
  return value ? &value->get_array() : nullptr;
}

bool JsonView::has(std::string_view key) const {
  return find(key) != nullptr;
}

double JsonView::number(std::string_view key) const {
  return find(key) ? json_get<double>(*object_, key, *file_) : kNoNumber;
}

bool JsonView::flag(std::string_view key) const {
  return find(key) && json_get<bool>(*object_, key, *file_);
}

std::string JsonView::text(std::string_view key) const {
  return find(key) ? json_get<std::string>(*object_, key, *file_) : "";
}

JsonView JsonView::object(std::string_view key) const {
  const json::value* value = find(key);
  if (!value) return {};
  if (!value->is_object()) throw_error("{}: key '{}' must be an object", *file_, key);
  return {value->get_object(), *file_};
}

std::vector<JsonView> JsonView::objects(std::string_view key) const {
  std::vector<JsonView> out;
  const json::array* items = array(key);
  if (!items) return out;
  for (const json::value& item : *items) {
    if (!item.is_object()) throw_error("{}: '{}' must hold objects", *file_, key);
    out.emplace_back(item.get_object(), *file_);
  }
  return out;
}

std::vector<double> JsonView::numbers(std::string_view key) const {
  std::vector<double> out;
  const json::array* items = array(key);
  if (!items) return out;
  for (const json::value& item : *items) {
    if (!item.is_number() && !item.is_null()) {
      throw_error("{}: '{}' must hold numbers", *file_, key);
    }
    out.push_back(item.is_null() ? kNoNumber : item.to_number<double>());
  }
  return out;
}

std::vector<std::string> JsonView::texts(std::string_view key) const {
  std::vector<std::string> out;
  const json::array* items = array(key);
  if (!items) return out;
  for (const json::value& item : *items) {
    if (!item.is_string()) throw_error("{}: '{}' must hold strings", *file_, key);
    out.emplace_back(item.get_string());
  }
  return out;
}

std::vector<double> Metrics::column(std::string_view name) const {
  const auto it = columns.find(name);
  return it == columns.end() ? std::vector<double>(rows, kNoNumber) : it->second;
}

size_t StageFiles::count_events(std::string_view name) const {
  return static_cast<size_t>(std::ranges::count_if(events, [&](const json::object& event) {
    const json::value* value = event.if_contains("event");
    return value && value->is_string() && value->get_string() == name;
  }));
}

std::string RunFiles::name() const {
  const fs::path path = fs::absolute(folder).lexically_normal();
  return (path.has_filename() ? path : path.parent_path()).filename().string();
}

const StageFiles* RunFiles::find(std::string_view stage) const {
  const auto it = std::ranges::find(stages, stage, &StageFiles::name);
  return it == stages.end() ? nullptr : &*it;
}

RunFiles read_run(const fs::path& folder) {
  if (!fs::is_directory(folder)) throw_error("{}: there is no such run folder", folder.string());
  RunFiles run;
  run.folder = folder;
  run.summary = read_object(folder / "summary.json");
  run.tasks = read_object(folder / "tasks.json");
  run.answers = read_answers(folder / "task-samples.jsonl");
  run.environment = read_object(folder / "env.json");
  read_status(folder / "STATUS", run);
  if (fs::exists(folder / "config.resolved.toml")) {
    run.recipe = read_file(folder / "config.resolved.toml");
  }
  run.seconds = read_seconds(read_object(folder / "seconds.json"));
  for (const std::string& name : stage_names(folder, run.environment, run.summary)) {
    run.stages.push_back(read_stage(folder, name));
    const auto take = [&](JsonFile& into, const char* file) {
      JsonFile found = read_object(folder / name / file);
      if (!found.path.empty()) into = std::move(found);
    };
    take(run.selection, "selection.json");
    take(run.scale, "scale.json");
  }
  for (const JsonView& stage : run.environment.view().objects("stages")) {
    std::ranges::find(run.stages, stage.text("name"), &StageFiles::name)->steps =
        stage.number("steps");
  }
  run.environment.root.erase("stages");
  if (run.summary.path.empty() && run.recipe.empty() && run.stages.empty()) {
    throw_error(
        "{}: nothing of a run is in this folder; give the one that `halo convert --run` wrote",
        folder.string());
  }
  return run;
}

}  // namespace halo
