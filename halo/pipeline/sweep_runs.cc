// The runs of a sweep: which go next, as processes, and what came of them.
#include <fcntl.h>
#include <signal.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>
#include <map>

#include "halo/base/check.h"
#include "halo/base/files.h"
#include "halo/base/folder_lock.h"
#include "halo/base/progress.h"
#include "halo/base/settings_io.h"
#include "halo/base/stop.h"
#include "halo/data/readers.h"
#include "halo/pipeline/checks.h"
#include "halo/pipeline/convert.h"
#include "halo/pipeline/run_folder.h"
#include "halo/pipeline/sweep.h"

extern char** environ;

namespace halo {
namespace {

std::string first_line(const fs::path& path) {
  if (!fs::exists(path)) return "";
  const std::string text = read_file(path);
  return text.substr(0, text.find('\n'));
}

// "done", "failed ...", or what else STATUS says; empty: not begun.
std::string state_of(const fs::path& run) {
  return first_line(run / "STATUS");
}

bool is_over(const fs::path& run) {
  const std::string state = state_of(run);
  return state == "done" || state.starts_with("failed");
}

// Runs `words` with what it prints going to `log`.
pid_t start(const std::vector<std::string>& words, const fs::path& log) {
  std::vector<char*> argv;
  for (const std::string& word : words) argv.push_back(const_cast<char*>(word.c_str()));
  argv.push_back(nullptr);
  posix_spawn_file_actions_t actions;
  posix_spawn_file_actions_init(&actions);
  posix_spawn_file_actions_addopen(&actions, STDIN_FILENO, "/dev/null", O_RDONLY, 0);
  posix_spawn_file_actions_addopen(&actions, STDOUT_FILENO, log.c_str(),
                                   O_WRONLY | O_CREAT | O_TRUNC, 0644);
  posix_spawn_file_actions_adddup2(&actions, STDOUT_FILENO, STDERR_FILENO);
  // A group of its own: a terminal's ^C goes to the sweep alone, which tells its runs once. Twice
  // would kill them before they have saved.
  posix_spawnattr_t attributes;
  posix_spawnattr_init(&attributes);
  posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETPGROUP);
  posix_spawnattr_setpgroup(&attributes, 0);
  pid_t pid = 0;
  const int error = posix_spawn(&pid, argv[0], &actions, &attributes, argv.data(), environ);
  posix_spawnattr_destroy(&attributes);
  posix_spawn_file_actions_destroy(&actions);
  if (error != 0) throw_error("{} cannot be run: {}", words[0], std::strerror(error));
  return pid;
}

struct Planned {
  SweepCell cell;
  fs::path run;
  const Planned* donor = nullptr;  // an earlier cell with stages in common
  size_t shared = 0;               // how many
  bool over = false;
  pid_t process = 0;  // 0: does not run
};

std::vector<Planned> plan_cells(const SweepArgs& args, const fs::path& recipe,
                                const std::vector<SweepCell>& cells) {
  std::vector<Planned> plan(cells.size());
  for (size_t i = 0; i < cells.size(); ++i) {
    plan[i].cell = cells[i];
    plan[i].run = args.out / cells[i].name;
    plan[i].over = is_over(plan[i].run);
    for (size_t j = 0; j < i; ++j) {
      const size_t shared = shared_stages(recipe, cells[i], cells[j]);
      if (shared <= plan[i].shared) continue;
      plan[i].shared = shared;
      plan[i].donor = &plan[j];
    }
  }
  return plan;
}

// The first stage that the cell does itself; none: all are shared.
const Stage* first_own_stage(const fs::path& recipe, const Planned& planned) {
  const Recipe own = read_recipe(recipe, planned.cell.set);
  const auto stages = wanted_stages(pipeline_stages(), own);
  return planned.shared < stages.size() ? stages[planned.shared] : nullptr;
}

// Whether the stages that it takes from another cell are there, or never will be.
bool is_ready(const fs::path& recipe, const Planned& planned) {
  if (!planned.donor || fs::exists(planned.run) || planned.donor->over) return true;
  const Recipe own = read_recipe(recipe, planned.cell.set);
  const auto stages = wanted_stages(pipeline_stages(), own);
  for (size_t s = 0; s < planned.shared; ++s) {
    if (!stage_finished(planned.donor->run / stages[s]->name)) return false;
  }
  return true;
}

void take_shared(const fs::path& recipe, const Planned& planned) {
  if (!planned.donor || fs::exists(planned.run)) return;
  const Stage* own = first_own_stage(recipe, planned);
  if (!own) own = &pipeline_stages().back();
  try {
    branch(planned.donor->run, own->name, planned.run);
  } catch (const Error& error) {  // the other cell failed before it had them
    warn(fmt::format("{}: begins anew ({})", planned.cell.name, error.what()));
  }
}

void add_needles(const std::string& name, const json::object& model, json::object& figures) {
  const json::value* lengths = model.if_contains("needle");
  if (!lengths) return;
  for (const auto& [length, value] : lengths->as_object()) {
    figures[fmt::format("{} {}", name, std::string_view(length))] = value.at("accuracy");
  }
}

// What is known of a run, finished or not.
json::object figures_of(const fs::path& run) {
  json::object figures;
  if (fs::exists(run / "summary.json")) {
    const json::object summary = read_json(run / "summary.json").as_object();
    const json::object& student = summary.at("student").as_object();
    figures["KL"] = student.at("kl");
    figures["loss above teacher"] =
        student.at("loss").to_number<double>() -
        summary.at("teacher").as_object().at("loss").to_number<double>();
    if (const json::value* top1 = student.if_contains("top1")) figures["top-1"] = *top1;
    add_needles("needles", student, figures);
  }
  // {stage, figure, its key in result.json}
  constexpr std::array<std::array<const char*, 3>, 2> kResults = {
      {{"transfer", "KL before stage 1", "held_out_kl"},
       {"on-policy", "KL of what it writes", "written_kl"}}};
  for (const auto& [stage, figure, key] : kResults) {
    const fs::path path = run / stage / "result.json";
    if (!fs::exists(path)) continue;
    const json::object result = read_json(path).as_object();
    if (const json::value* value = result.if_contains(key)) figures[figure] = *value;
  }
  for (const char* stage : {"align", "distill"}) {
    const fs::path metrics = run / stage / "metrics.jsonl";
    if (!fs::exists(metrics)) continue;
    double largest = 0, last = std::nan("");
    read_json_lines(metrics, [&](const json::object& line, const std::string&) {
      if (line.at("grad_norm").is_number()) {
        largest = std::max(largest, line.at("grad_norm").to_number<double>());
      }
      if (line.at("loss").is_number()) last = line.at("loss").to_number<double>();
    });
    figures[fmt::format("{}: largest gradient", stage)] = largest;
    if (std::isfinite(last)) figures[fmt::format("{}: last loss", stage)] = last;
  }
  return figures;
}

json::array groups_of(const json::array& cells) {
  struct Group {
    std::vector<std::string> figures;
    std::map<std::string, std::vector<double>> values;
    int64_t runs = 0, not_finished = 0;
  };
  std::vector<std::string> order;
  std::map<std::string, Group> groups;
  for (const json::value& cell : cells) {
    const std::string name(cell.at("group").as_string());
    if (!groups.contains(name)) order.push_back(name);
    Group& group = groups[name];
    ++group.runs;
    group.not_finished += cell.at("state").as_string() == "done" ? 0 : 1;
    for (const auto& [figure, value] : cell.at("figures").as_object()) {
      if (!value.is_number()) continue;
      std::vector<double>& values = group.values[std::string(figure)];
      if (values.empty()) group.figures.emplace_back(figure);
      values.push_back(value.to_number<double>());
    }
  }
  json::array out;
  for (const std::string& name : order) {
    const Group& group = groups[name];
    json::object figures;
    for (const std::string& figure : group.figures) {
      const std::vector<double>& values = group.values.at(figure);
      const auto n = static_cast<double>(values.size());
      double mean = 0, squares = 0;
      for (const double v : values) mean += v / n;
      for (const double v : values) squares += (v - mean) * (v - mean);
      json::object about{{"mean", mean}, {"stderr", nullptr}, {"n", values.size()}};
      if (n > 1) about["stderr"] = std::sqrt(squares / (n - 1) / n);
      figures[figure] = std::move(about);
    }
    out.push_back(json::object{{"name", name},
                               {"n", group.runs},
                               {"not_finished", group.not_finished},
                               {"figures", std::move(figures)}});
  }
  return out;
}

json::object result_of(const std::vector<Planned>& plan) {
  json::array cells;
  for (const Planned& planned : plan) {
    cells.push_back(json::object{{"name", planned.cell.name},
                                 {"group", planned.cell.group},
                                 {"set", json::value_from(planned.cell.set)},
                                 {"state", state_of(planned.run)},
                                 {"figures", figures_of(planned.run)}});
  }
  json::array groups = groups_of(cells);
  return {{"cells", std::move(cells)}, {"groups", std::move(groups)}};
}

// What is over stands in the table for what the sweep says now: its limits too, by which it was
// found done or failed.
void check_over(const fs::path& run, const Recipe& now) {
  const fs::path resolved = run / kResolvedRecipe;
  if (!fs::exists(resolved)) return;
  for (const Difference& d : differences(read_recipe(resolved, {}), now)) {
    if (d.effect == Effect::kNone && !d.key.starts_with("gates.")) continue;
    throw_error(
        "sweep: {} was made with {} = {}, and now {} is asked for; go back to that, give another "
        "--out, or remove the folder",
        run.string(), d.key, d.before, d.now);
  }
}

// Before any of them runs: what a stage of a cell would refuse is found before an hour is spent on
// the others.
void check_cell(const fs::path& recipe, const SweepCell& cell, const fs::path& out) {
  const Recipe own = read_recipe(recipe, cell.set);
  const fs::path run = out / cell.name;
  if (is_over(run)) return check_over(run, with_absolute_paths(own));
  try {
    check_ahead(own, Missing::kRefused);
  } catch (const Error& error) {
    throw_error("sweep: {}: {}", cell.name, error.what());
  }
}

// Waits for one of those that run, which is then over.
void wait_for_one(std::vector<Planned>& plan) {
  int status = 0;
  const pid_t pid = waitpid(-1, &status, 0);
  for (Planned& planned : plan) {
    if (planned.process == 0 || planned.process != pid) continue;
    planned.process = 0;
    planned.over = true;
  }
}

}  // namespace

json::object sweep(const SweepArgs& args) {
  SweepFile file = read_settings_file<SweepFile>(args.file, {});
  file.sweep.set.insert(file.sweep.set.end(), args.set.begin(), args.set.end());
  fs::path recipe = args.file.parent_path() / file.recipe;
  if (!fs::exists(recipe)) recipe = file.recipe;
  const std::vector<SweepCell> cells = sweep_cells(file.sweep);
  for (const SweepCell& cell : cells) check_cell(recipe, cell, args.out);
  fs::create_directories(args.out);
  const FolderLock lock(args.out);
  std::vector<Planned> plan = plan_cells(args, recipe, cells);
  // A stop reaches those that run, which save what they have.
  const AtStop stop([&plan] {
    for (const Planned& planned : plan) {
      if (planned.process > 0) kill(planned.process, SIGTERM);
    }
  });
  Progress progress("sweep", std::ssize(plan));
  const auto running = [&] {
    return std::ranges::count_if(plan, [](const Planned& p) { return p.process > 0; });
  };
  const auto say = [&](const std::string& what) {
    progress.update(std::ranges::count_if(plan, &Planned::over), what);
  };
  while (true) {
    const auto next = std::ranges::find_if(
        plan, [&](const Planned& p) { return !p.over && p.process == 0 && is_ready(recipe, p); });
    if (next != plan.end() && running() < args.jobs) {
      take_shared(recipe, *next);
      std::vector<std::string> words = {args.program, "convert",          recipe.string(),
                                        "--run",      next->run.string(), "--resume"};
      for (const std::string& assignment : next->cell.set) {
        words.insert(words.end(), {"--set", assignment});
      }
      next->process = start(words, args.out / (next->cell.name + ".log"));
      say(next->cell.name);
      continue;
    }
    if (running() == 0) break;
    wait_for_one(plan);
    say("");
  }
  json::object result = result_of(plan);
  write_json(args.out / "sweep.json", result);
  write_file(args.out / "sweep.md", sweep_table(result));
  return result;
}

}  // namespace halo
