#include "halo/pipeline/convert.h"

#include <chrono>

#include "ATen/ATen.h"
#include "ATen/Parallel.h"
#include "halo/base/files.h"
#include "halo/base/settings_io.h"
#include "halo/pipeline/plan.h"
#include "halo/stages/choose_layers.h"
#include "halo/stages/evaluate.h"
#include "halo/stages/stages.h"

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

void write_environment(const StageContext& context, const ConvertArgs& args) {
  write_json(
      args.run / "env.json",
      json::object{{"command", args.command},
                   {"version", HALO_VERSION},
                   {"device", context.machine().device_name},
                   {"threads", at::get_num_threads()},
                   {"teacher", context.teacher_directory().string()},
                   {"teacher_config_hash", hash_file(context.teacher_directory() / "config.json")},
                   {"tokenizer_hash", context.tokenizer_hash()}});
}

// What a later stage or the evaluation would refuse, refused before the first one trains.
void check_ahead(const StageContext& context) {
  const Recipe& r = context.recipe();
  num_layers_to_keep(r.select, context.teacher().config.num_layers);
  context.loader(r.align, "align");
  if (r.finetune.tokens > 0) finetune_view(context);
  const TokenShard& text = context.held_out();
  check_needle_lengths("select.needle_length", text, {candidate_needle_length(r)},
                       NeedlePool::kSearch);
  check_needle_lengths(r.scale.lengths.empty() ? "scale.lengths by default" : "scale.lengths", text,
                       context.scale_lengths(), NeedlePool::kSearch);
  check_needle_lengths(r.eval.lengths.empty() ? "eval.lengths by default" : "eval.lengths", text,
                       context.eval_lengths(), NeedlePool::kReport);
}

struct Step {
  std::string name;
  bool wanted;
  std::function<void(const fs::path& out)> run;
};

std::vector<Step> pipeline(const StageContext& context, const fs::path& run) {
  const Recipe& r = context.recipe();
  const auto model = [run](const std::string& stage) { return stage_model(run / stage); };
  const bool attention = r.align_attention.tokens > 0, finetune = r.finetune.tokens > 0;
  return {
      {"transfer", true, [&](const fs::path& out) { run_transfer(context, out); }},
      {"align", true,
       [&context, model](const fs::path& out) { run_align(context, model("transfer"), out); }},
      {"align-attention", attention,
       [&](const fs::path& out) { run_align_attention(context, out); }},
      {"select", true,
       [&context, model, attention](const fs::path& out) {
         run_select(context, model("align"), attention ? model("align-attention") : fs::path(),
                    out);
       }},
      {"distill", true,
       [&context, model](const fs::path& out) { run_distill(context, model("select"), out); }},
      {"finetune", finetune,
       [&context, model](const fs::path& out) { run_finetune(context, model("distill"), out); }},
      {"scale", true, [&context, model, finetune](const fs::path& out) {
         run_scale(context, model(finetune ? "finetune" : "distill"), out);
       }}};
}

// Seconds a run has spent converting, over all its resumes.
double seconds_before(const fs::path& run) {
  const fs::path path = run / "seconds.json";
  if (!fs::exists(path)) return 0;
  return json_get<double>(read_json(path).as_object(), "seconds", path.string());
}

void summarise(const StageContext& context, const fs::path& run) {
  json::object summary = evaluate(context, run / "model");
  json::object tokens;
  for (const Step& step : pipeline(context, run)) {
    if (!step.wanted) continue;
    const fs::path path = run / step.name / "result.json";
    tokens[step.name] = json_get<int64_t>(read_json(path).as_object(), "tokens", path.string());
  }
  summary["tokens_per_stage"] = tokens;
  summary["seconds"] = seconds_before(run);
  summary["matrix_gflops"] = measure_matrix_gflops(context.machine());
  write_json(run / "summary.json", summary);
}

}  // namespace

void convert(const Recipe& recipe, const ConvertArgs& args) {
  check_folder(recipe, args);
  const StageContext context(recipe);
  check_ahead(context);
  open_folder(recipe, args);
  write_environment(context, args);
  const std::vector<Step> steps = pipeline(context, args.run);
  for (const Step& step : steps) {
    const fs::path out = args.run / step.name;
    if (!step.wanted || stage_finished(out)) continue;
    leave_if_stopped(step.name);
    write_file(args.run / "STATUS", "running " + step.name + "\n");
    fs::create_directories(out);
    const double before = seconds_before(args.run);
    const auto start = std::chrono::steady_clock::now();
    step.run(out);
    const std::chrono::duration<double> time = std::chrono::steady_clock::now() - start;
    write_json(args.run / "seconds.json", json::object{{"seconds", before + time.count()}});
  }
  if (!fs::exists(args.run / "model")) {
    commit_directory(args.run / "model", [&](const fs::path& directory) {
      fs::copy(stage_model(args.run / "scale"), directory, fs::copy_options::recursive);
    });
  }
  if (!fs::exists(args.run / "summary.json")) {
    write_file(args.run / "STATUS", "running eval\n");
    summarise(context, args.run);
  }
  write_file(args.run / "STATUS", "done\n");
}

}  // namespace halo
