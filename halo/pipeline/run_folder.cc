// Status and records of a run folder.
#include "halo/pipeline/run_folder.h"

#include <fmt/ranges.h>

#include <algorithm>
#include <cstring>

#include "c10/util/Exception.h"
#include "halo/base/files.h"
#include "halo/train/checkpoint.h"

namespace halo {
namespace {

std::string first_line(const std::string& text) {
  return text.substr(0, text.find('\n'));
}

}  // namespace

void write_status(const fs::path& run, const std::string& line, bool model_is_stale,
                  bool figures_are_stale) {
  std::string stale;
  const auto name = [&](const char* file, bool is_stale) {
    if (is_stale && fs::exists(run / file)) stale += std::string(" ") + file;
  };
  name("model", model_is_stale);
  name("summary.json", figures_are_stale);
  name("report.html", figures_are_stale);
  write_file(run / "STATUS", line + "\n" + (stale.empty() ? "" : "stale:" + stale + "\n"));
}

void with_status(const fs::path& run, const std::string& stage, const std::function<void()>& work) {
  const bool before_model = stage != evaluation().name;
  const auto say = [&](const std::string& line) { write_status(run, line, before_model, true); };
  const auto say_why = [&](const char* state, const char* why) {
    try {
      std::string text = first_line(why);
      if (text.starts_with(stage + ": ")) text.erase(0, stage.size() + 2);
      say(fmt::format("{} {}: {}", state, stage, text));
    } catch (const Error&) {  // a full disk, say; the first reason is the one to report
    }
  };
  say("running " + stage);
  try {
    work();
  } catch (const Stopped& error) {
    say_why("stopped", error.what());
    throw;
  } catch (const c10::Error& error) {
    say_why("failed", error.what_without_backtrace());
    throw;
  } catch (const std::bad_alloc&) {
    say_why("failed", "out of memory");
    throw;
  } catch (const std::exception& error) {
    say_why("failed", error.what());
    throw;
  }
}

void mark_stopped(const fs::path& run) {
  const std::string running = "running ";
  try {
    std::string status = read_file(run / "STATUS");
    if (!status.starts_with(running)) return;
    status.replace(0, running.size(), "stopped ");
    status.insert(status.find('\n'), ": by a signal");
    write_file(run / "STATUS", status);
  } catch (const Error&) {  // there is none yet, or the disk is full
  }
}

const Stage& evaluation() {
  static const Stage stage{.name = "eval",
                           .help = "The figures of teacher and student",
                           .inputs = {{"model", "directory of the student", {}}},
                           .reads_training_length = true};
  return stage;
}

RunRecords::RunRecords(fs::path run, Recipe recipe, std::span<const Stage> stages, Absent absent)
    : run_(std::move(run)),
      recipe_(std::move(recipe)),
      stages_(stages),
      absent_(absent),
      hashes_(run_) {
  for (const Stage& stage : stages_) {
    if (has(stage)) hashes_.remember(read_record(path(stage)));
  }
  if (has(evaluation())) hashes_.remember(read_record(path(evaluation())));
}

fs::path RunRecords::path(const Stage& stage) const {
  return (&stage == &evaluation() ? run_ : run_ / stage.name) / "inputs.json";
}

std::vector<fs::path> RunRecords::models(const Stage& stage) const {
  if (&stage == &evaluation()) return {run_ / "model"};
  return args_in_run(stages_, stage, recipe_, run_).inputs;
}

bool RunRecords::has(const Stage& stage) const {
  return fs::exists(path(stage));
}

std::vector<Change> RunRecords::changes(const Stage& stage, bool with_models) {
  if (!has(stage)) return {};
  const json::object before = read_record(path(stage));
  std::vector<fs::path> inputs;
  if (with_models) inputs = models(stage);
  return compare_inputs(
      stage, before,
      describe_inputs(stage, recipe_, with_models ? &inputs : nullptr, hashes_, absent_));
}

void RunRecords::write(const Stage& stage) {
  const std::vector<fs::path> inputs = models(stage);
  fs::create_directories(path(stage).parent_path());
  write_json(path(stage), describe_inputs(stage, recipe_, &inputs, hashes_, absent_));
}

bool RunRecords::model_is_current() {
  if (!fs::exists(run_ / "model")) return false;
  const Stage& last = *wanted_stages(stages_, recipe_).back();
  const auto describe = [&](const fs::path& model) {
    const std::vector<fs::path> models = {model};
    return describe_inputs(evaluation(), recipe_, &models, hashes_, absent_);
  };
  return compare_inputs(evaluation(), describe(stage_model(run_ / last.name)),
                        describe(run_ / "model"))
      .empty();
}

std::optional<RunRecords::Stale> RunRecords::first_stale() {
  std::string what;
  try {
    for (const Stage* stage : wanted_stages(stages_, recipe_)) {
      what = stage->name;
      if (!stage_finished(run_ / what)) return Stale{what, "it is not finished"};
      const std::vector<Change> changed = changes(*stage, true);
      if (!changed.empty()) return Stale{what, "it was made with " + join(changed)};
    }
    what = "model";
    if (!model_is_current()) return Stale{what, "it is not what the last stage left"};
    what = "summary.json";
    if (!fs::exists(run_ / what)) return Stale{what, "it is not there"};
    const std::vector<Change> changed = changes(evaluation(), true);
    if (!changed.empty()) return Stale{what, "it was made with " + join(changed)};
  } catch (const Error& error) {
    return Stale{what, error.what()};
  }
  return std::nullopt;
}

std::vector<std::string> RunRecords::other_versions() const {
  std::map<std::string, std::vector<std::string>> stages;
  for (const Stage* stage : wanted_stages(stages_, recipe_)) {
    if (!has(*stage)) continue;
    const std::string version = made_by(read_record(path(*stage)));
    if (version != HALO_VERSION) stages[version].push_back(stage->name);
  }
  std::vector<std::string> out;
  for (const auto& [version, names] : stages) {
    out.push_back(fmt::format("{} ({})", version, fmt::join(names, ", ")));
  }
  return out;
}

bool has_progress(const Stage& stage, const fs::path& out) {
  if (stage_finished(out)) return true;
  if (!stage.training || !fs::exists(out)) return false;
  const std::vector<int64_t> steps = Checkpoints(out, 2).steps();
  return !steps.empty() && steps.front() > 0;
}

std::string why_stale(const fs::path& model) {
  fs::path directory = fs::absolute(model).lexically_normal();
  if (!directory.has_filename()) directory = directory.parent_path();
  const fs::path run = directory.parent_path(), recipe = run / kResolvedRecipe;
  if (directory.filename() != "model" || !fs::exists(recipe)) return "";
  const auto stages = pipeline_stages();
  RunRecords records(run, read_recipe(recipe, {}), stages, Absent::kUnknown);
  const std::optional<RunRecords::Stale> stale = records.first_stale();
  if (!stale || stale->what == "summary.json") return "";
  return fmt::format(
      "{}: is not the model of its run any more: {}: {}; `{}` makes it anew", directory.string(),
      stale->what, stale->why,
      shell_line({"halo", "convert", recipe.string(), "--run", run.string(), "--resume"}));
}

std::string shell_line(const std::vector<std::string>& words) {
  std::string line;
  for (const std::string& word : words) {
    const bool plain = !word.empty() && std::ranges::all_of(word, [](unsigned char c) {
      return std::isalnum(c) || std::strchr("_./=:,+-@%", c) != nullptr || c >= 0x80;
    });
    if (!line.empty()) line += ' ';
    if (plain) {
      line += word;
      continue;
    }
    line += '\'';
    for (const char c : word) c == '\'' ? line += "'\\''" : line += c;
    line += '\'';
  }
  return line;
}

}  // namespace halo
