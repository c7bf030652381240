#include "halo/pipeline/convert.h"

#include <fmt/ranges.h>
#include <spdlog/spdlog.h>

#include <algorithm>
#include <chrono>

#include "ATen/ATen.h"
#include "ATen/Parallel.h"
#include "halo/base/files.h"
#include "halo/base/folder_lock.h"
#include "halo/base/progress.h"
#include "halo/base/settings_io.h"
#include "halo/base/stop.h"
#include "halo/pipeline/checks.h"
#include "halo/pipeline/run_folder.h"

namespace halo {
namespace {

// A finished stage into a new folder. Its weights are never written to again, so that both may
// share them.
void take_stage(const fs::path& from, const fs::path& to) {
  fs::create_directories(to);
  for (const auto& entry : fs::recursive_directory_iterator(from)) {
    const fs::path path = to / entry.path().lexically_relative(from);
    if (entry.is_directory()) {
      fs::create_directories(path);
      continue;
    }
    std::error_code error;
    if (path.extension() == ".safetensors") fs::create_hard_link(entry.path(), path, error);
    if (path.extension() != ".safetensors" || error) fs::copy_file(entry.path(), path);
  }
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

bool holds_nothing(const fs::path& run) {
  return std::ranges::none_of(fs::directory_iterator(run),
                              [](const auto& entry) { return entry.path().filename() != "lock"; });
}

// {STAGE: seconds it took, over all its resumes}
json::object seconds_of(const fs::path& run) {
  const fs::path path = run / "seconds.json";
  return fs::exists(path) ? read_object(path) : json::object();
}

// The command that makes `stage` anew with this recipe.
std::string command_from(const ConvertArgs& args, const std::string& stage) {
  return fmt::format("`{} --from {}` makes it anew, and what follows", args.command, stage);
}

// A run folder that one process has to itself.
class Run {
 public:
  Run(const Recipe& recipe, const ConvertArgs& args, std::span<const Stage> all)
      : recipe_(recipe),
        args_(args),
        all_(all),
        stages_(wanted_stages(all, recipe)),
        lock_(args.run) {
    const bool goes_on = args.resume || !args.from.empty();
    if (!goes_on && !holds_nothing(args.run)) {
      throw_error(
          "{}: the folder is not empty; use --resume to go on with the run in it, or another --run",
          args.run.string());
    }
    records_.emplace(args.run, recipe, all);
  }

  // Refuses what could not go on, as far as can be seen before any stage runs. `until`: the first
  // stage that begins anew. Changes nothing.
  void check(const std::string& until) const {
    check_unrecorded();
    for (const std::string& version : records_->other_versions()) {
      spdlog::warn("{}: made by halo {}, this is {}", args_.run.string(), version, HALO_VERSION);
    }
    for (const Stage* stage : stages_) {
      if (stage->name == until) return;
      const bool finished = stage_finished(out(*stage));
      if (!has_progress(*stage, out(*stage))) return;  // begins anew, and those behind it
      const std::vector<Change> changes = records_->changes(*stage, true);
      if (std::ranges::any_of(changes, &Change::model)) return;  // so too
      if (!changes.empty()) refuse(*stage, changes);
      if (!finished) return;
    }
  }

  void begin(const StageContext& context) {
    // What a crash left.
    for (const Stage& stage : all_) fs::remove_all(out(stage).string() + ".tmp");
    fs::remove_all(args_.run / "model.tmp");
    write_run_recipe(args_.run, recipe_);
    write_environment(recipe_, context, args_, all_);
    std::vector<std::string> names;
    for (const Stage* stage : stages_) {
      if (records_->has(*stage) || !has_progress(*stage, out(*stage))) continue;
      unrecorded_ = true;
      names.push_back(stage->name);
      records_->write(*stage);
    }
    if (names.empty()) return;
    spdlog::warn(
        "{}: {} of a version of halo that kept no record of what stages are made of: taken "
        "to be made of this recipe, teacher and data",
        args_.run.string(), fmt::join(names, ", "));
  }

  // Removes what the stage left, so that it begins anew.
  void forget(const Stage& stage) const {
    if (fs::exists(out(stage))) restart_stage(out(stage));
    json::object seconds = seconds_of(args_.run);
    if (seconds.erase(stage.name) > 0) write_json(args_.run / "seconds.json", seconds);
  }

  // Whether the stage is done, with the models that there are now.
  bool is_done(const Stage& stage) {
    if (!records_->has(stage) && fs::exists(out(stage))) forget(stage);  // it had only begun
    const std::vector<Change> changes = records_->changes(stage, true);
    if (changes.empty()) return stage_finished(out(stage));
    const bool other_model = std::ranges::any_of(changes, &Change::model);
    if (!other_model && has_progress(stage, out(stage))) refuse(stage, changes);
    spdlog::warn("{}: was made with {}; begins anew", stage.name, join(changes));
    forget(stage);
    return false;
  }

  void run(const Stage& stage, const StageContext& context) {
    last_run_ = stage.name;
    with_status(args_.run, stage.name, [&] {
      if (!records_->has(stage)) records_->write(stage);
      StageArgs args = args_in_run(all_, stage, recipe_, args_.run);
      args.again = shell_line({"halo", "convert", (args_.run / kResolvedRecipe).string(), "--run",
                               args_.run.string(), "--resume"});
      const auto start = std::chrono::steady_clock::now();
      if (is_run_by_all(stage)) context.ranks().broadcast(stage.name);
      stage.run(recipe_, context, args);
      const std::chrono::duration<double> time = std::chrono::steady_clock::now() - start;
      json::object seconds = seconds_of(args_.run);
      const json::value* before = seconds.if_contains(stage.name);
      seconds[stage.name] = time.count() + (before ? before->to_number<double>() : 0);
      write_json(args_.run / "seconds.json", seconds);
    });
  }

  // RUN/model and the figures, as far as they are not those of the stages.
  void finish(const StageContext& context) {
    if (!records_->model_is_current()) {
      const Progress phase("copying the student");
      commit_directory(args_.run / "model", [&](const fs::path& directory) {
        fs::copy(stage_model(out(*stages_.back())), directory, fs::copy_options::recursive);
      });
    }
    const bool has_figures = fs::exists(args_.run / "summary.json");
    const bool is_older = unrecorded_ && last_run_.empty() && !records_->has(evaluation());
    const bool is_current =
        records_->has(evaluation()) && records_->changes(evaluation(), true).empty();
    if (has_figures && is_older) records_->write(evaluation());
    if (has_figures && (is_older || is_current)) {
      dismiss(context.ranks());
    } else {
      for (const char* file : {"summary.json", "report.html"}) fs::remove(args_.run / file);
      say("evaluation");
      with_status(args_.run, evaluation().name, [&] {
        if (!is_current) records_->write(evaluation());
        context.ranks().broadcast(evaluation().name);
        summarise(context);
        context.ranks().broadcast("");  // lets the others go
      });
    }
    write_status(args_.run, "done", false, false);
  }

  // Lets the other ranks go.
  void dismiss(Communicator& ranks) {
    const auto tell = [&] { ranks.broadcast(""); };
    last_run_.empty() ? tell() : with_status(args_.run, last_run_, tell);
  }

  // STATUS after a stage alone.
  void write_state() {
    const std::optional<RunRecords::Stale> stale = records_->first_stale();
    const bool model = stale && stale->what != "summary.json";
    write_status(args_.run, stale ? "unfinished: next is " + stale->what : "done", model,
                 stale.has_value());
  }

  // Refuses to run `stage` where what it starts from is not made of this recipe.
  void check_before(const Stage& stage) {
    for (const Stage* before : stages_) {
      if (before->name == stage.name) return;
      if (!stage_finished(out(*before))) continue;
      const std::vector<Change> changes = records_->changes(*before, true);
      if (!changes.empty()) refuse(*before, changes);
    }
  }

  const std::vector<const Stage*>& stages() const { return stages_; }
  fs::path out(const Stage& stage) const { return args_.run / stage.name; }

 private:
  [[noreturn]] void refuse(const Stage& stage, const std::vector<Change>& changes) const {
    throw_error("{}: {} was made with {}; go back to that, or {}", args_.run.string(), stage.name,
                join(changes), command_from(args_, stage.name));
  }

  // Stages of a version that kept one recipe for all of them, and no records.
  void check_unrecorded() const {
    const fs::path resolved = args_.run / kResolvedRecipe;
    if (!fs::exists(resolved)) return;
    const auto before = read_settings_file<Recipe>(resolved, {});
    for (const Difference& d : differences(before, recipe_)) {
      if (d.effect == Effect::kNone || names_files(d.key)) continue;
      for (const Stage* stage : stages_) {
        const bool reads_it = !records_->has(*stage) && reads(*stage, d.key);
        if (!reads_it || !has_progress(*stage, out(*stage))) continue;
        throw_error("{}: the run began with {} = {}, the recipe has {}; go back to that, or {}",
                    args_.run.string(), d.key, d.before, d.now, command_from(args_, stage->name));
      }
    }
  }

  void summarise(const StageContext& context) const {
    json::object summary = evaluate(recipe_.eval, context, args_.run / "model");
    json::object tokens;
    double seconds = 0;
    for (const Stage* stage : stages_) {
      const fs::path path = out(*stage) / "result.json";
      tokens[stage->name] = json_get<int64_t>(read_object(path), "tokens", path.string());
    }
    for (const auto& [stage, spent] : seconds_of(args_.run)) seconds += spent.to_number<double>();
    summary["tokens_per_stage"] = tokens;
    summary["seconds"] = seconds;
    summary["matrix_gflops"] = measure_matrix_gflops(context.machine());
    write_json(args_.run / "summary.json", summary);
  }

  const Recipe recipe_;
  const ConvertArgs args_;
  const std::span<const Stage> all_;
  const std::vector<const Stage*> stages_;
  FolderLock lock_;
  const AtStop at_stop_{[this] { mark_stopped(args_.run); }};
  mutable std::optional<RunRecords> records_;  // hashes files, and remembers that
  bool unrecorded_ = false;
  std::string last_run_;  // the stage that ran last; empty: none has
};

// What the other ranks do: what all do, when the first one comes to it.
void follow(const Recipe& recipe, const fs::path& run, Communicator& ranks,
            std::span<const Stage> all) {
  std::optional<StageContext> context;
  for (std::string name; !(name = ranks.broadcast("")).empty();) {
    if (!context) context.emplace(context_settings(recipe), ranks);
    if (name == evaluation().name) {
      evaluate(recipe.eval, *context, run / "model");
      continue;
    }
    const Stage& stage = find_stage(all, name);
    stage.run(recipe, *context, args_in_run(all, stage, recipe, run));
  }
}

}  // namespace

void convert(const Recipe& relative, const ConvertArgs& args, Communicator& ranks,
             std::span<const Stage> all) {
  const Recipe recipe = with_absolute_paths(relative);
  ranks.set_log_folder(args.run / "ranks");
  if (!ranks.is_first()) return follow(recipe, args.run, ranks, all);
  if (!args.from.empty() && !is_wanted(find_stage(all, args.from), recipe)) {
    throw_error("--from {}: the recipe leaves this stage out", args.from);
  }
  Run run(recipe, args, all);
  run.check(args.from);
  check_ahead(recipe, Missing::kRefused, all);
  const StageContext context(context_settings(recipe), ranks);
  check_device(recipe, context.machine());
  bool again = false;
  for (const Stage* stage : run.stages()) {
    again |= stage->name == args.from;
    if (again) run.forget(*stage);
  }
  run.begin(context);
  for (size_t i = 0; i < run.stages().size(); ++i) {
    const Stage& stage = *run.stages()[i];
    const bool done = run.is_done(stage);
    say(fmt::format("stage {} of {}: {}{}", i + 1, run.stages().size(), stage.name,
                    done ? ": done before" : ""));
    if (!done) run.run(stage, context);
  }
  run.finish(context);
}

void convert_stage(const Recipe& relative, const ConvertArgs& args, const Stage& stage,
                   Communicator& ranks) {
  const Recipe recipe = with_absolute_paths(relative);
  const auto all = pipeline_stages();
  ranks.set_log_folder(args.run / "ranks");
  if (!ranks.is_first()) return follow(recipe, args.run, ranks, all);
  Run run(recipe, args, all);
  run.check(stage.name);
  run.check_before(stage);
  args_in_run(all, stage, recipe,
              args.run);  // refuses where a model that it starts from is missing
  const StageContext context(context_settings(recipe), ranks);
  if (stage_finished(run.out(stage))) {
    spdlog::warn(
        "{}: done before, runs again from its start; what later stages of {} made of it stays "
        "until they run again too",
        stage.name, args.run.string());
    run.forget(stage);
  }
  run.begin(context);
  run.is_done(stage);
  run.run(stage, context);
  run.dismiss(ranks);
  run.write_state();
}

void run_stage(const Recipe& relative, const Stage& stage, const StageArgs& args,
               Communicator& ranks) {
  const Recipe recipe = with_absolute_paths(relative);
  if (!ranks.is_first()) {
    ranks.wait();
    if (is_run_by_all(stage)) {
      stage.run(recipe, StageContext(context_settings(recipe), ranks), args);
    }
    return;
  }
  if (stage_finished(args.out)) {
    throw_error("{}: holds a finished stage; remove it or use another --out", args.out.string());
  }
  const FolderLock lock(args.out);
  FileHashes hashes(args.out);
  const fs::path path = args.out / "inputs.json";
  const bool has_record = fs::exists(path);
  if (has_record) hashes.remember(read_record(path));
  const json::object now = describe_inputs(stage, recipe, &args.inputs, hashes);
  const std::vector<Change> changes =
      has_record ? compare_inputs(stage, read_record(path), now) : std::vector<Change>();
  if (!changes.empty() && has_progress(stage, args.out)) {
    throw_error("{}: was begun with {}; go back to that, remove the folder or use another --out",
                args.out.string(), join(changes));
  }
  if (!changes.empty()) {
    // What trains on its way to the stage's result was begun of something else.
    for (const char* begun : {"calibration", "gates"}) fs::remove_all(args.out / begun);
  }
  const StageContext context(context_settings(recipe), ranks);
  if (!has_progress(stage, args.out)) {
    for (const auto& entry : fs::directory_iterator(args.out)) {
      if (entry.path().filename().string().starts_with("step-")) fs::remove_all(entry.path());
    }
  }
  write_json(path, now);
  ranks.wait();
  stage.run(recipe, context, args);
}

void branch(const fs::path& run, const std::string& name, const fs::path& to,
            std::span<const Stage> all) {
  find_stage(all, name);
  const fs::path resolved = run / kResolvedRecipe;
  if (!fs::exists(resolved)) throw_error("{}: is no run folder", run.string());
  const Recipe recipe = read_recipe(resolved, {});
  RunRecords records(run, recipe, all, Absent::kUnknown);
  std::vector<const Stage*> taken;
  for (const Stage* stage : wanted_stages(all, recipe)) {
    if (stage->name == name) break;
    const fs::path out = run / stage->name;
    if (!stage_finished(out)) {
      throw_error("{}: {} is not finished; branch at it or before it", run.string(), stage->name);
    }
    const std::vector<Change> changes = records.changes(*stage, true);
    if (!changes.empty()) {
      throw_error("{}: {} was made with {}; make it anew first, or branch at it or before it",
                  run.string(), stage->name, join(changes));
    }
    taken.push_back(stage);
  }
  commit_new_directory(to, [&](const fs::path& folder) {
    write_run_recipe(folder, recipe);
    const json::object seconds = seconds_of(run);
    json::object kept;
    for (const Stage* stage : taken) {
      take_stage(run / stage->name, folder / stage->name);
      if (const json::value* spent = seconds.if_contains(stage->name)) kept[stage->name] = *spent;
    }
    write_json(folder / "seconds.json", kept);
    write_status(folder, "unfinished: next is " + name, false, false);
  });
}

}  // namespace halo
