#include "halo/report/run_state.h"

#include <fmt/chrono.h>
#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <cmath>

#include "halo/base/folder_lock.h"

namespace halo {
namespace {

namespace fs = std::filesystem;
using Kind = RunState::Kind;

struct Words {
  std::string first, second, rest;  // of "failed distill: reason"
};

Words split(const std::string& status) {
  Words out;
  const size_t space = status.find(' ');
  out.first = status.substr(0, space);
  if (space == std::string::npos) return out;
  const size_t end = status.find_first_of(" :", space + 1);
  out.second = status.substr(space + 1, end == std::string::npos ? end : end - space - 1);
  if (end == std::string::npos) return out;
  const size_t rest = status.find_first_not_of(" :", end);
  if (rest != std::string::npos) out.rest = status.substr(rest);
  return out;
}

// A stage writes failed.json at its end, and STATUS says "running" from its beginning.
bool failed_since(const RunFiles& run, const std::string& stage) {
  const StageFiles* files = run.find(stage);
  if (!files || !files->failed) return false;
  std::error_code error;
  return fs::last_write_time(files->result.path, error) >=
         fs::last_write_time(run.folder / "STATUS", error);
}

RunState state_by_files(const RunFiles& run) {
  if (!run.summary.path.empty()) return {Kind::kDone};
  for (const StageFiles& stage : run.stages) {
    if (stage.failed) return {Kind::kFailed, stage.name};
    if (!stage.result.view()) return {Kind::kStopped, stage.name};
  }
  return {Kind::kStopped, "eval"};
}

// "stage 5 of 7, distill"
std::string place_of(const RunFiles& run, const std::string& stage) {
  const auto at = std::ranges::find(run.stages, stage, &StageFiles::name);
  if (at == run.stages.end()) {
    return stage == "eval" ? fmt::format("the evaluation, after {} stages", run.stages.size())
                           : escape_html(stage);
  }
  return fmt::format("stage {} of {}, {}", at - run.stages.begin() + 1, run.stages.size(),
                     escape_html(stage));
}

double last_finite(const std::vector<double>& values) {
  const auto it = std::find_if(values.rbegin(), values.rend(),
                               [](double value) { return std::isfinite(value); });
  return it == values.rend() ? kNoNumber : *it;
}

// "step 61 of 123, loss 0.4123"; nothing of a stage that has made no update.
std::string step_of(const StageFiles& stage) {
  const double step = last_finite(stage.metrics.column("step"));
  if (!std::isfinite(step)) return "";
  std::string out = "step " + format_figure(step);
  if (stage.steps > 0) out += " of " + format_figure(stage.steps);
  return out + ", loss " + format_figure(last_finite(stage.metrics.column("loss")));
}

// When a file of the stage was last written, in the world's time.
std::string last_sign(const RunFiles& run, const std::string& stage) {
  fs::file_time_type latest = fs::file_time_type::min();
  for (const fs::path& path :
       {run.folder / "STATUS", run.folder / stage, run.folder / stage / "metrics.jsonl"}) {
    std::error_code error;
    const fs::file_time_type time = fs::last_write_time(path, error);
    if (!error) latest = std::max(latest, time);
  }
  if (latest == fs::file_time_type::min()) return "";
  const auto seconds =
      std::chrono::time_point_cast<std::chrono::seconds>(std::chrono::file_clock::to_sys(latest));
  return fmt::format("Last written at {:%Y-%m-%d %H:%M:%S} UTC. ",
                     fmt::gmtime(std::chrono::system_clock::to_time_t(seconds)));
}

std::string resume_command(const RunFiles& run) {
  std::string command = run.environment.view().text("command");
  if (command.empty()) command = "halo convert RECIPE --run " + run.folder.string();
  return command.find(" --resume") == std::string::npos ? command + " --resume" : command;
}

struct Notice {
  const char* look;
  std::string heading, text;  // HTML
  std::string command = {};
};

// The last command that a text quotes: `halo ...`.
std::string quoted_command(const std::string& text) {
  const size_t end = text.rfind('`');
  const size_t begin = end == std::string::npos || end == 0 ? end : text.rfind('`', end - 1);
  return begin == std::string::npos || begin == end ? "" : text.substr(begin + 1, end - begin - 1);
}

Notice done(const RunFiles& run) {
  size_t passed = 0;
  for (const StageFiles& stage : run.stages) {
    if (stage.result.view().object("gate").flag("passed")) ++passed;
  }
  if (passed == 0 || passed < run.stages.size()) return {"done", "Finished", ""};
  return {"done", fmt::format("Finished: all {} stages passed their gates", passed), ""};
}

Notice failed(const RunFiles& run, const RunState& state) {
  const StageFiles* stage = run.find(state.stage);
  const JsonView gate = stage && stage->failed ? stage->result.view().object("gate") : JsonView();
  Notice out{"failed", "Failed in " + place_of(run, state.stage), escape_html(state.reason),
             resume_command(run)};
  if (!gate) return out;
  out.heading += fmt::format(": {} is {}, must be {} {}", escape_html(gate.text("figure")),
                             format_figure(gate.number("value")), escape_html(gate.text("must_be")),
                             format_figure(gate.number("limit")));
  out.text =
      "If the curves of this stage still fall at their end, train longer in a new run. If the "
      "figure is good enough for you, move the gate";
  const std::string command = quoted_command(state.reason);
  out.text += command.empty() ? " (gates.* in the recipe) and go on:" : " and go on:";
  if (!command.empty()) out.command = command;
  return out;
}

Notice running(const RunFiles& run, const RunState& state) {
  const StageFiles* stage = run.find(state.stage);
  const std::string step = stage ? step_of(*stage) : "";
  return {"running", "Running: " + place_of(run, state.stage) + (step.empty() ? "" : ", " + step),
          last_sign(run, state.stage) + "This page does not change by itself; this draws it again:",
          "halo report " + run.folder.string()};
}

Notice stopped(const RunFiles& run, const RunState& state) {
  const StageFiles* stage = run.find(state.stage);
  const std::string step = stage ? step_of(*stage) : "";
  std::string reason = escape_html(state.reason);
  if (!reason.empty()) reason += reason.ends_with('.') ? " " : ". ";
  return {"running", "Stopped in " + place_of(run, state.stage) + (step.empty() ? "" : ", " + step),
          reason + last_sign(run, state.stage) + "It goes on with:", resume_command(run)};
}

Notice notice(const RunFiles& run) {
  const RunState state = run_state(run);
  switch (state.kind) {
    case Kind::kDone:
      return done(run);
    case Kind::kRunning:
      return running(run, state);
    case Kind::kFailed:
      return failed(run, state);
    case Kind::kStopped:
      return stopped(run, state);
    case Kind::kOther:
      break;
  }
  return {"running", escape_html(state.reason), ""};
}

}  // namespace

RunState run_state(const RunFiles& run) {
  if (run.status.empty()) return state_by_files(run);
  const Words words = split(run.status);
  if (words.first == "done") return {Kind::kDone};
  if (words.first == "failed") return {Kind::kFailed, words.second, words.rest};
  if (words.first == "stopped") return {Kind::kStopped, words.second, words.rest};
  if (words.first != "running") return {Kind::kOther, "", run.status};
  if (failed_since(run, words.second)) return {Kind::kFailed, words.second};
  if (FolderLock::holder(run.folder)) return {Kind::kRunning, words.second};
  return {Kind::kStopped, words.second, "Its process ended without a word: it was killed."};
}

std::string banner(const RunFiles& run) {
  Notice n = notice(run);
  if (!run.stale.empty()) {
    n.text += (n.text.empty() ? "" : "</p><p>") +
              ("Stale, made before stages were done again: " + escape_html(run.stale) + ".");
  }
  return fmt::format("<div class=\"banner {}\"><b>{}</b>{}{}</div>\n", n.look, n.heading,
                     n.text.empty() ? "" : "<p>" + n.text + "</p>",
                     n.command.empty() ? "" : "<pre>" + escape_html(n.command) + "</pre>");
}

std::string short_banner(const RunFiles& run, const std::string& name) {
  const Notice n = notice(run);
  return fmt::format("<div class=\"banner {}\"><b>{}</b><p>{}</p></div>\n", n.look,
                     escape_html(name), n.heading);
}

}  // namespace halo
