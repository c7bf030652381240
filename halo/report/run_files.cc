#include "halo/report/run_files.h"

#include <algorithm>
#include <functional>

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

// Those that the summary counts, in the order they ran; then what else looks like a stage's folder.
std::vector<std::string> stage_names(const fs::path& folder, const JsonFile& summary) {
  std::vector<std::string> names;
  if (const JsonView tokens = summary.view().object("tokens_per_stage")) {
    for (const auto& [name, count] : tokens.members()) names.emplace_back(name);
  }
  std::vector<std::string> others;
  for (const auto& entry : fs::directory_iterator(folder)) {
    const std::string name = entry.path().filename().string();
    if (std::ranges::find(names, name) != names.end()) continue;
    const auto has = [&](const char* file) { return fs::exists(entry.path() / file); };
    if (has("result.json") || has("failed.json") || has("metrics.jsonl") || has("selection.json") ||
        has("scale.json")) {
      others.push_back(name);
    }
  }
  std::ranges::sort(others);
  names.insert(names.end(), others.begin(), others.end());
  return names;
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

RunFiles read_run(const fs::path& folder) {
  RunFiles run;
  run.folder = folder;
  run.summary = read_object(folder / "summary.json");
  if (run.summary.path.empty()) {
    throw_error("{}: there is no summary.json; finish the run with `halo convert --resume`",
                folder.string());
  }
  run.environment = read_object(folder / "env.json");
  if (fs::exists(folder / "config.resolved.toml")) {
    run.recipe = read_file(folder / "config.resolved.toml");
  }
  for (const std::string& name : stage_names(folder, run.summary)) {
    run.stages.push_back(read_stage(folder, name));
    const auto take = [&](JsonFile& into, const char* file) {
      JsonFile found = read_object(folder / name / file);
      if (!found.path.empty()) into = std::move(found);
    };
    take(run.selection, "selection.json");
    take(run.scale, "scale.json");
  }
  return run;
}

}  // namespace halo
