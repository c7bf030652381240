#include "halo/pipeline/convert.h"

#include <chrono>

#include "ATen/ATen.h"
#include "ATen/Parallel.h"
#include "halo/base/files.h"
#include "halo/base/progress.h"
#include "halo/base/settings_io.h"
#include "halo/pipeline/checks.h"

namespace halo {
namespace {

// Refuses a folder that is not this run's. Changes nothing.
void check_folder(const Recipe& recipe, const ConvertArgs& args) {
  const fs::path resolved = args.run / "config.resolved.toml";
  std::error_code error;
  const bool empty = !fs::exists(args.run, error) || fs::is_empty(args.run, error);
  if (!empty && !args.resume) {
    throw_error(
        "{}: the folder is not empty; use --resume to go on with the run in it, or another "
        "--run",
        args.run.string());
  }
  if (!fs::exists(resolved, error)) return;
  Recipe before;
  read_toml(before, read_file(resolved), resolved.string());
  for (const Difference& d : differences(before, recipe)) {
    if (d.effect == Effect::kNone) continue;
    throw_error(
        "{}: the run began with {} = {}, the recipe has {}; resume with that of the run ({}), or "
        "use another --run",
        args.run.string(), d.key, d.before, d.now, resolved.string());
  }
}

void open_folder(const Recipe& recipe, const ConvertArgs& args) {
  std::error_code error;
  fs::create_directories(args.run, error);
  if (error) throw_error("{}: cannot make the run folder: {}", args.run.string(), error.message());
  write_file(args.run / "config.resolved.toml", to_toml(recipe));
}

// [{"name", "steps"}] of the stages that the recipe wants; 0 steps of one that does not train.
json::array planned_stages(const Recipe& recipe, std::span<const Stage> stages) {
  json::array out;
  for (const Stage& stage : stages) {
    if (!is_wanted(stage, recipe)) continue;
    const int64_t steps = stage.training ? stage.training->recipe(recipe).steps() : 0;
    out.push_back({{"name", stage.name}, {"steps", steps}});
  }
  return out;
}

void write_environment(const Recipe& recipe, const StageContext& context, const ConvertArgs& args,
                       std::span<const Stage> stages) {
  write_json(
      args.run / "env.json",
      json::object{{"command", args.command},
                   {"version", HALO_VERSION},
                   {"device", context.machine().device_name},
                   {"threads", at::get_num_threads()},
                   {"teacher", context.teacher_directory().string()},
                   {"teacher_config_hash", hash_file(context.teacher_directory() / "config.json")},
                   {"tokenizer_hash", context.tokenizer_hash()},
                   {"stages", planned_stages(recipe, stages)}});
}

json::object read_object(const fs::path& path) {
  json::value value = read_json(path);
  if (!value.is_object()) throw_error("{}: not a JSON object", path.string());
  return std::move(value.get_object());
}

// Seconds a run has spent converting, over all its resumes.
double seconds_before(const fs::path& run) {
  const fs::path path = run / "seconds.json";
  if (!fs::exists(path)) return 0;
  return json_get<double>(read_object(path), "seconds", path.string());
}

void summarise(const Recipe& recipe, const StageContext& context,
               const std::vector<const Stage*>& stages, const fs::path& run) {
  json::object summary = evaluate(recipe.eval, context, run / "model");
  json::object tokens;
  for (const Stage* stage : stages) {
    const fs::path path = run / stage->name / "result.json";
    tokens[stage->name] = json_get<int64_t>(read_object(path), "tokens", path.string());
  }
  summary["tokens_per_stage"] = tokens;
  summary["seconds"] = seconds_before(run);
  summary["matrix_gflops"] = measure_matrix_gflops(context.machine());
  write_json(run / "summary.json", summary);
}

}  // namespace

void convert(const Recipe& recipe, const ConvertArgs& args, std::span<const Stage> all) {
  check_folder(recipe, args);
  check_ahead(recipe, Missing::kRefused, all);
  const StageContext context(context_settings(recipe));
  open_folder(recipe, args);
  write_environment(recipe, context, args, all);
  std::vector<const Stage*> stages;
  for (const Stage& stage : all) {
    if (is_wanted(stage, recipe)) stages.push_back(&stage);
  }
  for (size_t i = 0; i < stages.size(); ++i) {
    const Stage* stage = stages[i];
    const fs::path out = args.run / stage->name;
    const std::string number = fmt::format("stage {} of {}: {}", i + 1, stages.size(), stage->name);
    if (stage_finished(out)) {
      say(number + ": done before");
      continue;
    }
    say(number);
    write_file(args.run / "STATUS", "running " + stage->name + "\n");
    fs::create_directories(out);
    const double before = seconds_before(args.run);
    const auto start = std::chrono::steady_clock::now();
    stage->run(recipe, context, args_in_run(all, *stage, recipe, args.run));
    const std::chrono::duration<double> time = std::chrono::steady_clock::now() - start;
    write_json(args.run / "seconds.json", json::object{{"seconds", before + time.count()}});
  }
  if (!fs::exists(args.run / "model")) {
    const Progress phase("copying the student");
    commit_directory(args.run / "model", [&](const fs::path& directory) {
      fs::copy(stage_model(args.run / stages.back()->name), directory, fs::copy_options::recursive);
    });
  }
  if (!fs::exists(args.run / "summary.json")) {
    write_file(args.run / "STATUS", "running eval\n");
    say("evaluation");
    summarise(recipe, context, stages, args.run);
  }
  write_file(args.run / "STATUS", "done\n");
}

}  // namespace halo
