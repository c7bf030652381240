// halo convert, and its stages alone: transfer, align, align-attention, select, distill, finetune,
// scale.
#include "halo/pipeline/convert.h"

#include <spdlog/spdlog.h>

#include <iostream>

#include "halo/base/files.h"
#include "halo/base/options.h"
#include "halo/cli/commands.h"
#include "halo/report/report.h"
#include "halo/stages/selection_rule.h"
#include "halo/stages/stages.h"

namespace halo {
namespace {

struct StageArgs {
  std::string recipe, run, teacher, student, attention, out;
  std::vector<std::string> set;
};

// select without a model
struct SweepArgs {
  std::string scores;
  std::vector<std::string> recall, commonsense;
  int64_t keep = 0;
  bool json = false;

  void settings(Settings& s) {
    s("scores", scores, {.help = "FILE.csv of a layer sweep: no model needed"});
    s("keep", keep, {.help = "with --scores: layers to keep", .max = 10'000});
    s("recall", recall, {.help = "with --scores: recall columns"});
    s("commonsense", commonsense, {.help = "with --scores: commonsense columns"});
  }
};

// A stage's place: in a run folder the recipe, the student and the output follow from it; with
// --teacher, --student, --out everything is said.
struct Place {
  Recipe recipe;
  std::string teacher;
  fs::path student, attention, out;
};

Place find_place(const StageArgs& args, const std::string& stage, const std::string& before) {
  if (args.run.empty() == args.out.empty()) {
    throw UsageError(
        fmt::format("halo {}: give --run DIR, or --recipe, --student and --out", stage));
  }
  Place place;
  if (args.run.empty()) {
    if (args.recipe.empty()) throw UsageError(fmt::format("halo {}: --recipe is missing", stage));
    place.recipe = read_recipe(args.recipe, args.set);
    place.student = args.student;
    place.attention = args.attention;
    place.out = args.out;
  } else {
    const fs::path run = args.run;
    place.recipe = read_recipe(run / "config.resolved.toml", args.set);
    place.out = run / stage;
    const bool finetuned = place.recipe.finetune.tokens > 0;
    const std::string from = before == "finetune" && !finetuned ? "distill" : before;
    if (!from.empty()) place.student = stage_model(run / from);
    if (place.recipe.align_attention.tokens > 0 && stage == "select") {
      place.attention = stage_model(run / "align-attention");
    }
  }
  if (!before.empty() && place.student.empty()) {
    throw UsageError(fmt::format("halo {}: --student is missing", stage));
  }
  place.teacher = args.teacher;
  return place;
}

void run_stage(const StageArgs& args, const std::string& stage, const std::string& before) {
  const Place place = find_place(args, stage, before);
  const StageContext context(place.recipe, place.teacher);
  if (stage_finished(place.out)) {
    if (args.run.empty()) {
      throw_error("{}: holds a finished stage; remove it or use another --out", place.out.string());
    }
    spdlog::warn(
        "{}: done before, runs again from its start; what later stages of {} made of it "
        "stays until they run again too",
        stage, args.run);
    restart_stage(place.out);
  }
  fs::create_directories(place.out);
  if (stage == "transfer") run_transfer(context, place.out);
  if (stage == "align") run_align(context, place.student, place.out);
  if (stage == "align-attention") run_align_attention(context, place.out);
  if (stage == "select") run_select(context, place.student, place.attention, place.out);
  if (stage == "distill") run_distill(context, place.student, place.out);
  if (stage == "finetune") run_finetune(context, place.student, place.out);
  if (stage == "scale") run_scale(context, place.student, place.out);
}

void select_from_scores(const SweepArgs& args) {
  if (args.keep < 1) throw UsageError("halo select --scores: --keep K is missing");
  const SweepTable table = read_sweep(args.scores, args.recall, args.commonsense);
  const std::vector<double> scores = halo_scores(table.recall, table.commonsense);
  const std::vector<int64_t> layers = top_layers(scores, args.keep);
  if (args.json) {
    std::cout << json::serialize(json::object{{"layers", json::value_from(layers)},
                                              {"scores", json::value_from(scores)}})
              << "\n";
    return;
  }
  std::cout << fmt::format("keep layers {}\n", fmt::join(layers, " "));
  for (size_t i = 0; i < scores.size(); ++i) {
    std::cout << fmt::format("layer {:>3}  score {:.4f}\n", i, scores[i]);
  }
}

CLI::App* add_stage(CLI::App& app, const std::string& stage, const std::string& before,
                    const std::string& help, std::shared_ptr<StageArgs>* out = nullptr) {
  auto args = std::make_shared<StageArgs>();
  if (out) *out = args;
  CLI::App* command = app.add_subcommand(stage, help);
  command->add_option("--run", args->run,
                      "run folder of `halo convert`: resumes its stage, or redoes it if done");
  command->add_option("--recipe", args->recipe, "RECIPE.toml, outside a run folder");
  command->add_option("--teacher", args->teacher, "Hugging Face directory, over the recipe's");
  if (!before.empty()) {
    command->add_option("--student", args->student, "model directory to start from");
  }
  command->add_option("--out", args->out, "folder for step-N and result.json");
  add_recipe_options(*command, args->set);
  command->footer(fmt::format("Example: halo {} --run runs/demo", stage));
  if (!out) command->callback([args, stage, before] { run_stage(*args, stage, before); });
  return command;
}

}  // namespace

void add_recipe_options(CLI::App& command, std::vector<std::string>& set) {
  command.add_option("--set", set, "section.key=value, over the recipe");
  RunRecipe run;
  add_overrides(command, settings_of(run), "run", set);
}

void add_convert(CLI::App& app) {
  struct Args {
    std::string recipe, run;
    std::vector<std::string> set;
    bool resume = false;
  };
  auto args = std::make_shared<Args>();
  CLI::App* command =
      app.add_subcommand("convert", "Turn a Transformer into a HypeNet: all stages, resumable");
  command->add_option("recipe", args->recipe, "RECIPE.toml")->required();
  command->add_option("--run", args->run, "run folder")->required();
  command->add_flag("--resume", args->resume, "go on with the run in the folder");
  add_recipe_options(*command, args->set);
  command->footer("Example: halo convert demo/demo.toml --run runs/demo");
  command->callback([args] {
    std::string line = fmt::format("halo convert {} --run {}", args->recipe, args->run);
    for (const std::string& assignment : args->set) line += " --set " + assignment;
    convert(read_recipe(args->recipe, args->set), {args->run, args->resume, line});
    write_report(args->run);
    std::cout << fmt::format(
        "student: {0}/model\nfigures: {0}/summary.json\nreport:  {0}/report.html\n", args->run);
  });

  add_stage(app, "transfer", "", "Stage 0: a student from the teacher's weights");
  add_stage(app, "align", "transfer", "Stage 1: lightning mixers learn the teacher's outputs");
  add_stage(app, "align-attention", "", "Stage 1b: the same for attention without positions");
  std::shared_ptr<StageArgs> select;
  CLI::App* select_command =
      add_stage(app, "select", "align", "Choose the layers that keep attention", &select);
  select_command->add_option("--attention", select->attention, "align-attention's model, if any");
  auto sweep = std::make_shared<SweepArgs>();
  add_options(*select_command, *sweep);
  select_command->add_flag("--json", sweep->json, "print JSON");
  select_command->callback([select, sweep] {
    sweep->scores.empty() ? run_stage(*select, "select", "align") : select_from_scores(*sweep);
  });
  add_stage(app, "distill", "select", "Stage 2: KL from the teacher");
  add_stage(app, "finetune", "distill", "Stage 3: cross-entropy on long sequences");
  add_stage(app, "scale", "finetune", "Find the logit scale");
}

}  // namespace halo
