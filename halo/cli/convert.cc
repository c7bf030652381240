// halo convert, and its stages alone: transfer, align, align-attention, select, distill, finetune,
// scale.
#include "halo/pipeline/convert.h"

#include <iostream>
#include <sstream>

#include "halo/base/files.h"
#include "halo/base/options.h"
#include "halo/base/progress.h"
#include "halo/cli/commands.h"
#include "halo/pipeline/checks.h"
#include "halo/pipeline/run_folder.h"
#include "halo/report/report.h"
#include "halo/runtime/rank_place.h"
#include "halo/runtime/ranks.h"
#include "halo/stages/selection_rule.h"

namespace halo {
namespace {

struct StageCommand {
  std::string recipe, run, teacher, out;
  std::vector<std::string> inputs;  // in the order of the stage's row
  std::vector<std::string> set;
};

// select without a model
struct SweepArgs {
  std::string scores;
  std::vector<std::string> recall, commonsense;
  std::vector<int64_t> items;
  int64_t keep = 0;
  bool json = false;

  void settings(Settings& s) {
    s("scores", scores, {.help = "FILE.csv of a layer sweep: no model needed"});
    s("keep", keep, {.help = "with --scores: layers to keep", .max = 10'000});
    s("recall", recall, {.help = "with --scores: recall columns"});
    s("commonsense", commonsense, {.help = "with --scores: commonsense columns"});
    s("items", items,
      {.help = "with --scores: items behind the figures of each column, recall's first, or one "
               "number for all: also says how probable each layer is",
       .min = 1,
       .max = kMaxCount});
  }
};

// Of a model alone: as given, as its config.json says, or by its teacher.
void find_training_length(const StageCommand& command, ScaleRecipe& scale) {
  if (scale.training_length > 0) return;
  const std::string& student = command.inputs.front();
  scale.training_length = recorded_training_length(read_model_config(student));
  if (scale.training_length > 0 || !command.teacher.empty()) return;
  throw_error(
      "{}: config.json does not say how long the texts were that the model was trained on "
      "(max_position_embeddings is no help: it is the same in every HypeNet), and the scale is "
      "searched beyond that; give --set scale.training_length=TOKENS, or --teacher DIR",
      student);
}

Recipe stage_recipe(const StageCommand& command, const std::string& stage) {
  if (command.run.empty() == command.out.empty()) {
    throw UsageError(
        fmt::format("halo {}: give --run DIR, or --recipe, --student and --out", stage));
  }
  // The scale of a hybrid is searched with nothing but itself and text.
  const bool alone = stage == "scale" && command.run.empty() && command.recipe.empty();
  if (alone) {
    Recipe recipe;
    recipe.finetune.tokens = 0;  // what it was trained on is what its config.json says
    for (const std::string& assignment : command.set) set_setting(recipe, assignment);
    recipe.teacher = command.teacher.empty() ? command.inputs.front() : command.teacher;
    if (!command.inputs.front().empty()) find_training_length(command, recipe.scale);
    check_settings(recipe, "--set");
    return recipe;
  }
  if (command.run.empty() && command.recipe.empty()) {
    throw UsageError(fmt::format("halo {}: --recipe is missing", stage));
  }
  Recipe recipe = read_recipe(
      command.run.empty() ? fs::path(command.recipe) : fs::path(command.run) / kResolvedRecipe,
      command.set);
  if (!command.teacher.empty()) recipe.teacher = command.teacher;
  return recipe;
}

// The command line of a conversion, for the record and for advice.
std::string convert_line(const std::string& recipe, const std::string& run,
                         const std::vector<std::string>& set) {
  std::vector<std::string> words = {"halo", "convert", recipe, "--run", run};
  for (const std::string& assignment : set) words.insert(words.end(), {"--set", assignment});
  return shell_line(words);
}

// In a run folder inputs and output follow from it; else everything is said.
void run_command(const StageCommand& command, const Stage& stage) {
  const Recipe recipe = stage_recipe(command, stage.name);
  if (!command.run.empty()) {
    const std::string resolved = (fs::path(command.run) / kResolvedRecipe).string();
    std::vector<std::string> set = command.set;
    if (!command.teacher.empty()) set.push_back("teacher=" + command.teacher);
    const ConvertArgs args{command.run, /*resume=*/true, convert_line(resolved, command.run, set)};
    run_ranks(recipe.run, [&](Communicator& ranks) { convert_stage(recipe, args, stage, ranks); });
    return;
  }
  for (size_t i = 0; i < stage.inputs.size(); ++i) {
    if (command.inputs[i].empty() && !stage.inputs[i].optional) {
      throw UsageError(fmt::format("halo {}: --{} is missing", stage.name, stage.inputs[i].option));
    }
  }
  StageArgs args =
      args_by_hand(stage, recipe, {command.inputs.begin(), command.inputs.end()}, command.out);
  std::vector<std::string> words = {"halo", stage.name};
  if (!command.recipe.empty()) words.insert(words.end(), {"--recipe", command.recipe});
  if (!command.teacher.empty()) words.insert(words.end(), {"--teacher", command.teacher});
  for (size_t i = 0; i < stage.inputs.size(); ++i) {
    if (command.inputs[i].empty()) continue;
    words.insert(words.end(), {"--" + stage.inputs[i].option, command.inputs[i]});
  }
  words.insert(words.end(), {"--out", command.out});
  for (const std::string& assignment : command.set) {
    words.insert(words.end(), {"--set", assignment});
  }
  args.again = shell_line(words);
  run_ranks(recipe.run, [&](Communicator& ranks) { run_stage(recipe, stage, args, ranks); });
}

// "squad,fda" is two columns: in CSV no name has a comma.
std::vector<std::string> column_names(const std::vector<std::string>& given) {
  std::vector<std::string> names;
  for (const std::string& words : given) {
    std::istringstream text(words);
    for (std::string name; std::getline(text, name, ',');) names.push_back(name);
  }
  return names;
}

void select_from_scores(const SweepArgs& args) {
  if (args.keep < 1) throw UsageError("halo select --scores: --keep K is missing");
  const SweepTable table = read_sweep(args.scores, column_names(args.recall),
                                      column_names(args.commonsense), args.items);
  if (args.keep > std::ssize(table.recall)) {
    throw_error("--keep {}: {} has {} layers", args.keep, args.scores, table.recall.size());
  }
  const std::vector<double> scores = halo_scores(table.recall, table.commonsense);
  const std::vector<int64_t> layers = top_layers(scores, args.keep);
  constexpr int64_t kDraws = 10'000;
  std::vector<double> probability;
  if (!args.items.empty()) probability = keep_probability(table, args.keep, kDraws);
  if (args.json) {
    json::object object{{"layers", json::value_from(layers)}, {"scores", json::value_from(scores)}};
    if (!probability.empty()) object["probability"] = json::value_from(probability);
    std::cout << json::serialize(object) << "\n";
    return;
  }
  std::cout << fmt::format("keep layers {}\n", fmt::join(layers, " "));
  for (size_t i = 0; i < scores.size(); ++i) {
    std::cout << fmt::format("layer {:>3}  score {:.4f}", i, scores[i])
              << (probability.empty() ? "" : fmt::format("  kept {:.3f}", probability[i])) << "\n";
  }
}

// Returns what the command does.
std::function<void()> add_stage(CLI::App& app, const Stage& stage) {
  auto args = std::make_shared<StageCommand>();
  args->inputs.resize(stage.inputs.size());
  CLI::App* command = app.add_subcommand(stage.name, stage.help);
  command->add_option("--run", args->run,
                      "run folder of `halo convert`: resumes its stage, or redoes it if done");
  command->add_option("--recipe", args->recipe, "RECIPE.toml, outside a run folder");
  command->add_option("--teacher", args->teacher, "Hugging Face directory, over the recipe's");
  for (size_t i = 0; i < stage.inputs.size(); ++i) {
    command->add_option("--" + stage.inputs[i].option, args->inputs[i], stage.inputs[i].help);
  }
  command->add_option("--out", args->out, "folder for step-N and result.json");
  add_recipe_options(*command, args->set);
  command->footer(fmt::format("Example: halo {} --run runs/demo", stage.name));
  const std::function<void()> run = [args, &stage] { run_command(*args, stage); };
  command->callback(run);
  return run;
}

// `halo select --scores`: the rule alone, on scores that somebody else measured.
void add_scores(CLI::App& select, const std::function<void()>& run_stage) {
  auto args = std::make_shared<SweepArgs>();
  add_options(select, *args);
  select.add_flag("--json", args->json, "print JSON");
  select.callback(
      [args, run_stage] { args->scores.empty() ? run_stage() : select_from_scores(*args); });
}

// The page shows the curves that a failed gate's advice speaks of.
void draw_failed(const fs::path& run) {
  try {
    write_report(run);
    say(fmt::format("report: {}/report.html", run.string()));
  } catch (const Error& error) {  // the gate is what counts
    warn(error.what());
  }
}

}  // namespace

void add_recipe_options(CLI::App& command, std::vector<std::string>& set) {
  command.add_option("--set", set, "section.key=value, over the recipe");
  add_overrides<RunRecipe>(command, "run", set);
}

void add_convert(CLI::App& app) {
  struct Args {
    std::string recipe, run, from;
    std::vector<std::string> set;
    bool resume = false;
  };
  auto args = std::make_shared<Args>();
  CLI::App* command =
      app.add_subcommand("convert", "Turn a Transformer into a HypeNet: all stages, resumable");
  command->add_option("recipe", args->recipe, "RECIPE.toml")->required();
  command->add_option("--run", args->run, "run folder")->required();
  command->add_flag("--resume", args->resume, "go on with the run in the folder");
  command->add_option("--from", args->from,
                      "STAGE: do this stage of the run in the folder again, and those after it");
  add_recipe_options(*command, args->set);
  command->footer("Example: halo convert demo/demo.toml --run runs/demo");
  command->callback([args] {
    const Recipe recipe = read_recipe(args->recipe, args->set);
    ConvertArgs convert_args{args->run, args->resume,
                             convert_line(args->recipe, args->run, args->set), args->from};
    if (is_restart()) {
      convert_args.resume = true;
      convert_args.from.clear();  // done anew by the first start
    }
    run_ranks(recipe.run, [&](Communicator& ranks) {
      try {
        convert(recipe, convert_args, ranks);
      } catch (const GateFailed&) {
        if (ranks.is_first()) draw_failed(args->run);
        throw;
      }
      if (!ranks.is_first()) return;
      write_report(args->run);
      std::cout << fmt::format(
          "student: {0}/model\nfigures: {0}/summary.json\nreport:  {0}/report.html\n", args->run);
    });
  });

  for (const Stage& stage : pipeline_stages()) {
    const std::function<void()> run = add_stage(app, stage);
    if (stage.name == "select") add_scores(*app.get_subcommand(stage.name), run);
  }
}

}  // namespace halo
