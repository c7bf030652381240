// halo eval: tasks, or the figures of a recipe; halo report.
#include <iostream>

#include "halo/base/files.h"
#include "halo/base/options.h"
#include "halo/base/progress.h"
#include "halo/base/settings_io.h"
#include "halo/cli/commands.h"
#include "halo/eval/tasks/runner.h"
#include "halo/pipeline/recipe.h"
#include "halo/pipeline/run_folder.h"
#include "halo/report/report.h"
#include "halo/runtime/machine.h"
#include "halo/runtime/ranks.h"

namespace halo {
namespace {

void print_model(const std::string& name, const json::object& model) {
  std::cout << fmt::format("{:<8} loss {:.4f} nats a token, {:.4f} bits a byte", name,
                           model.at("loss").to_number<double>(),
                           model.at("bits_per_byte").to_number<double>());
  if (model.contains("kl")) {
    std::cout << fmt::format(", KL from the teacher {:.4f}", model.at("kl").to_number<double>());
  }
  std::cout << "\n";
  for (const char* key : {"needle", "needle_unscaled"}) {
    if (!model.contains(key)) continue;
    for (const auto& [length, value] : model.at(key).as_object()) {
      const json::object& figures = value.as_object();
      std::cout << fmt::format("  {:<16} {:>7} tokens: {:.3f} (n = {})\n", key, std::string(length),
                               figures.at("accuracy").to_number<double>(),
                               figures.at("n").to_number<int64_t>());
    }
  }
}

struct EvalArgs {
  std::vector<std::string> models, set;
  std::string teacher, recipe, out, samples, cache;
  TaskArgs tasks;
  EngineRecipe engine;
  bool json = false;
};

// What the options of a recipe's run section say where there is no recipe.
struct TaskMachine {
  RunRecipe run;
  void settings(Settings& s) { s("run", run, {}); }
};

// Refused now, not when all is done.
void prove_writable(const std::string& out) {
  if (!out.empty()) AtomicFile{out};
}

void eval_tasks(const EvalArgs& args) {
  TaskMachine machine;
  for (const std::string& assignment : args.set) set_setting(machine, assignment);
  RunTasksOptions options{args.models, args.samples, args.cache, args.engine};
  if (!args.teacher.empty()) options.models.insert(options.models.begin(), args.teacher);
  if (options.models.empty()) throw UsageError("halo eval --tasks needs a model");
  run_ranks(machine.run, [&](Communicator& ranks) {
    if (ranks.is_first()) prove_writable(args.out);
    const std::vector<ModelResult> results =
        run_tasks(args.tasks, options, open_machine(run_of_rank(machine.run, ranks)), ranks);
    if (!ranks.is_first()) return;
    const json::object object = results_to_json(results);
    if (!args.out.empty()) write_json(args.out, object);
    std::cout << (args.json ? format_json(object) + "\n" : results_to_text(results));
  });
}

void eval_recipe(const EvalArgs& args) {
  if (args.models.size() > 1) throw UsageError("halo eval --recipe takes one model");
  Recipe recipe = read_recipe(args.recipe, args.set);
  if (!args.teacher.empty()) recipe.teacher = args.teacher;
  if (args.engine.kv_type != KvType::kComputed) recipe.eval.engine.kv_type = args.engine.kv_type;
  recipe.eval.engine.invariant |= args.engine.invariant;
  run_ranks(recipe.run, [&](Communicator& ranks) {
    if (ranks.is_first()) prove_writable(args.out);
    const StageContext context(context_settings(recipe), ranks);
    const json::object result =
        evaluate(recipe.eval, context, args.models.empty() ? "" : args.models.front());
    if (!ranks.is_first()) return;
    if (!args.out.empty()) write_json(args.out, result);
    if (args.json) {
      std::cout << format_json(result) << "\n";
      return;
    }
    print_model("teacher", result.at("teacher").as_object());
    if (result.contains("student")) print_model("student", result.at("student").as_object());
  });
}

}  // namespace

void add_eval(CLI::App& app) {
  auto args = std::make_shared<EvalArgs>();
  CLI::App* command =
      app.add_subcommand("eval", "What models can do: tasks, or the figures of a recipe");
  command->add_option("models", args->models, "Hugging Face directories");
  command->add_option("--tasks", args->tasks.tasks, "TASK,TASK,...: of\n" + task_help())
      ->delimiter(',');
  command->add_option("--data", args->tasks.data,
                      "folder with TASK.jsonl, .jsonl.zst or .jsonl.gz");
  command->add_option("--limit", args->tasks.limit, "items of each task; 0: all")
      ->check(CLI::NonNegativeNumber);
  command
      ->add_option("--shots", args->tasks.shots,
                   "solved items in front of each: the first of TASK.shots.jsonl, or of the task's "
                   "own file, which then are not asked")
      ->check(CLI::NonNegativeNumber);
  command
      ->add_option("--lengths", args->tasks.lengths,
                   "TOKENS,TOKENS,... of tasks that are made to a length")
      ->delimiter(',')
      ->check(CLI::Range(int64_t{1}, int64_t{16'777'216}))
      ->capture_default_str();
  command->add_option("--log-samples", args->samples,
                      "write what each model said of each item to this file, as JSON lines");
  command->add_option("--cache", args->cache,
                      "folder where answers are kept, and taken from when the same is asked again");
  command->add_option("--recipe", args->recipe,
                      "RECIPE.toml, in place of tasks: held-out loss, KL from the teacher, loss by "
                      "position and needles, as its run, data and eval sections say");
  command->add_option("--teacher", args->teacher,
                      "Hugging Face directory: with tasks the model that the others are compared "
                      "with, else over the recipe's");
  add_options(*command, args->engine);
  add_recipe_options(*command, args->set);
  command->add_option("--out", args->out, "also write the JSON to this file");
  command->add_flag("--json", args->json, "print JSON");
  command->footer(
      "Examples: halo eval runs/demo/model --teacher demo/teacher --tasks lambada --data eval\n"
      "          halo eval runs/demo/model --recipe demo/demo.toml --set eval.haystacks=40\n"
      "          halo launch -n 2 -- eval MODEL --tasks lambada --data eval --device cuda");
  command->callback([args] {
    if (args->tasks.tasks.empty() == args->recipe.empty()) {
      throw UsageError("halo eval needs --tasks or --recipe, one of them");
    }
    for (const std::string& model : args->models) {
      if (const std::string why = why_stale(model); !why.empty()) warn(why);
    }
    args->recipe.empty() ? eval_tasks(*args) : eval_recipe(*args);
  });
}

void add_report(CLI::App& app) {
  struct Args {
    std::vector<std::string> runs;
    std::string out;
  };
  auto args = std::make_shared<Args>();
  CLI::App* command = app.add_subcommand(
      "report", "One self-contained HTML page of a run, or of two beside each other");
  command->add_option("runs", args->runs, "run folder, finished or not; or two of them")
      ->required()
      ->expected(1, 2);
  command->add_option("--out", args->out,
                      "file for the page; of one run RUN/report.html without it");
  command->footer(
      "Examples: halo report runs/demo\n"
      "          halo report runs/demo runs/other --out compared.html");
  command->callback([args] {
    const std::vector<std::string>& runs = args->runs;
    if (runs.size() == 2 && args->out.empty()) {
      throw UsageError("halo report: the page of two runs needs --out FILE");
    }
    const std::string out = args->out.empty() ? runs[0] + "/report.html" : args->out;
    write_file(out, runs.size() == 2 ? comparison_page(runs[0], runs[1]) : report_page(runs[0]));
    std::cout << out << "\n";
  });
}

}  // namespace halo
