#include "halo/pipeline/status.h"

#include <fmt/ranges.h>

#include "halo/base/files.h"
#include "halo/base/folder_lock.h"
#include "halo/pipeline/run_folder.h"

namespace halo {
namespace {

// Bytes of the files below a folder; those that go meanwhile count as nothing.
int64_t disk_bytes(const fs::path& folder) {
  std::error_code error;
  int64_t bytes = 0;
  for (fs::recursive_directory_iterator entry(folder, error), end; !error && entry != end;
       entry.increment(error)) {
    std::error_code gone;
    const auto size = entry->is_regular_file(gone) ? entry->file_size(gone) : 0;
    if (!gone) bytes += static_cast<int64_t>(size);
  }
  return bytes;
}

// The last whole line of metrics.jsonl; empty where there is none.
json::object last_metrics(const fs::path& path) {
  if (!fs::exists(path)) return {};
  std::string text = read_file(path);
  text.resize(text.rfind('\n') + 1);  // npos + 1 is 0
  if (text.empty()) return {};
  const size_t before = text.rfind('\n', text.size() - 2);
  const size_t begin = before == std::string::npos ? 0 : before + 1;
  const json::value line = parse_json(text.substr(begin), path.string(), begin);
  return line.is_object() ? line.as_object() : json::object();
}

json::object stage_status(const Stage& stage, const Recipe& recipe, const fs::path& out) {
  json::object status{{"stage", stage.name}};
  const fs::path result = out / "result.json", failed = out / "failed.json";
  const bool is_done = fs::exists(result), has_failed = !is_done && fs::exists(failed);
  status["state"] = is_done           ? "done"
                    : has_failed      ? "failed"
                    : fs::exists(out) ? "begun"
                                      : "waiting";
  if (stage.training && fs::exists(out)) {
    const json::object metrics = last_metrics(out / "metrics.jsonl");
    const int64_t steps = stage.training->recipe(recipe).steps();
    const auto step = json_get_or<int64_t>(metrics, "step", 0, "metrics.jsonl");
    status["step"] = step;
    status["steps"] = steps;
    if (const json::value* rate = metrics.if_contains("tokens_per_second")) {
      status["tokens_per_second"] = *rate;
      const double tokens = double(stage.training->recipe(recipe).tokens_per_step);
      if (!is_done) {
        status["seconds_left"] =
            double(steps - step) * tokens / std::max(rate->to_number<double>(), 1e-9);
      }
    }
  }
  if (is_done || has_failed) {
    const json::value content = read_json(is_done ? result : failed);
    if (content.is_object() && content.as_object().contains("gate")) {
      status["gate"] = content.at("gate");
    }
  }
  status["disk_bytes"] = disk_bytes(out);
  return status;
}

// "failed align: the gate is not passed ..." as state, stage and why.
void read_state(const fs::path& run, json::object& status) {
  std::string line = fs::exists(run / "STATUS") ? read_file(run / "STATUS") : "unfinished";
  line.resize(std::min(line.size(), line.find('\n')));
  const size_t space = line.find(' '), colon = line.find(": ");
  const std::string state = line.substr(0, space);
  status["state"] = state;
  if (state == "unfinished" || space == std::string::npos) return;
  status["stage"] = line.substr(space + 1, colon == std::string::npos ? colon : colon - space - 1);
  if (colon != std::string::npos) status["why"] = line.substr(colon + 2);
}

std::string duration(double seconds) {
  const auto s = static_cast<int64_t>(seconds + 0.5);
  if (s < 60) return fmt::format("{} s", s);
  if (s < 3600) return fmt::format("{} min {} s", s / 60, s % 60);
  return fmt::format("{} h {} min", s / 3600, s / 60 % 60);
}

std::string text_or(const json::object& object, const char* key, const char* otherwise) {
  const json::value* value = object.if_contains(key);
  return value && value->is_string() ? std::string(value->get_string()) : otherwise;
}

std::string gate_text(const json::object& stage) {
  if (!stage.contains("gate")) return "";
  const json::object& gate = stage.at("gate").as_object();
  const auto number = [&](const char* key) {
    const json::value* value = gate.if_contains(key);
    return value && value->is_number() ? fmt::format("{:.4g}", value->to_number<double>()) : "none";
  };
  return fmt::format("{}: {}, must be {} {}", text_or(gate, "figure", "gate"), number("value"),
                     text_or(gate, "must_be", "?"), number("limit"));
}

std::string progress_text(const json::object& stage) {
  std::string text;
  if (stage.contains("steps")) {
    text = fmt::format("step {} of {}", stage.at("step").to_number<int64_t>(),
                       stage.at("steps").to_number<int64_t>());
  }
  if (stage.contains("seconds_left")) {
    text +=
        fmt::format(", {:.0f} tokens/s, {} left", stage.at("tokens_per_second").to_number<double>(),
                    duration(stage.at("seconds_left").to_number<double>()));
  }
  return text;
}

}  // namespace

json::object run_status(const fs::path& run) {
  const fs::path resolved = run / kResolvedRecipe;
  if (!fs::exists(resolved)) throw_error("{}: is no run folder", run.string());
  const Recipe recipe = read_recipe(resolved, {});
  json::object status{{"run", run.string()}};
  read_state(run, status);
  const std::optional<std::string> holder = FolderLock::holder(run);
  if (holder) {
    status["process"] = *holder;
  } else if (status.at("state") == "running") {
    status["state"] = "killed";
  }
  json::array stages;
  const auto all = pipeline_stages();
  for (const Stage* stage : wanted_stages(all, recipe)) {
    stages.push_back(stage_status(*stage, recipe, run / stage->name));
  }
  status["stages"] = std::move(stages);
  RunRecords records(run, recipe, all, Absent::kUnknown);
  if (!holder) {
    if (const auto stale = records.first_stale()) {
      status["stale"] = {{"what", stale->what}, {"why", stale->why}};
    }
  }
  status["versions"] = json::value_from(records.other_versions());
  status["disk_bytes"] = disk_bytes(run);
  return status;
}

std::string format_status(const json::object& status) {
  const json::array& stages = status.at("stages").as_array();
  const std::string stage = text_or(status, "stage", "");
  std::string out = fmt::format("{}: {}", text_or(status, "run", ""), text_or(status, "state", ""));
  if (!stage.empty()) out += " " + stage;
  for (size_t i = 0; i < stages.size(); ++i) {
    if (text_or(stages[i].as_object(), "stage", "") == stage) {
      out += fmt::format(" (stage {} of {})", i + 1, stages.size());
    }
  }
  if (status.contains("process")) out += ", " + text_or(status, "process", "");
  if (status.contains("why")) out += "\n  " + text_or(status, "why", "");
  out += "\n";
  for (const json::value& value : stages) {
    const json::object& about = value.as_object();
    const std::string state = text_or(about, "state", ""), gate = gate_text(about);
    out += fmt::format("{:<16} {:<8} {:>9.1f} MB  {}\n", text_or(about, "stage", ""), state,
                       about.at("disk_bytes").to_number<double>() / 1e6,
                       gate.empty() ? progress_text(about) : gate);
  }
  if (status.contains("stale")) {
    const json::object& stale = status.at("stale").as_object();
    out += fmt::format("not up to date: {}: {}\n", text_or(stale, "what", ""),
                       text_or(stale, "why", ""));
  }
  for (const json::value& version : status.at("versions").as_array()) {
    out += fmt::format("made by halo {}\n", std::string(version.as_string()));
  }
  return out + fmt::format("disk {:.1f} MB\n", status.at("disk_bytes").to_number<double>() / 1e6);
}

}  // namespace halo
