// halo eval: held-out loss, KL from a teacher, loss by position, needles; halo report.
#include <iostream>

#include "halo/cli/commands.h"
#include "halo/pipeline/recipe.h"
#include "halo/report/report.h"

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

}  // namespace

void add_eval(CLI::App& app) {
  struct Args {
    std::string model, teacher, recipe, out;
    std::vector<std::string> set;
    bool json = false;
  };
  auto args = std::make_shared<Args>();
  CLI::App* command = app.add_subcommand(
      "eval", "Held-out loss, KL from the teacher, loss by position and needles of a model");
  command->add_option("model", args->model, "Hugging Face directory of a student");
  command->add_option("--recipe", args->recipe, "RECIPE.toml: its run, data and eval sections")
      ->required();
  command->add_option("--teacher", args->teacher, "Hugging Face directory, over the recipe's");
  add_recipe_options(*command, args->set);
  command->add_option("--out", args->out, "also write the JSON to this file");
  command->add_flag("--json", args->json, "print JSON");
  command->footer(
      "Example: halo eval runs/demo/model --recipe demo/demo.toml --set eval.haystacks=40");
  command->callback([args] {
    Recipe recipe = read_recipe(args->recipe, args->set);
    if (!args->teacher.empty()) recipe.teacher = args->teacher;
    const StageContext context(context_settings(recipe));
    const json::object result = evaluate(recipe.eval, context, args->model);
    if (!args->out.empty()) write_json(args->out, result);
    if (args->json) {
      std::cout << format_json(result) << "\n";
      return;
    }
    print_model("teacher", result.at("teacher").as_object());
    if (result.contains("student")) print_model("student", result.at("student").as_object());
  });
}

void add_report(CLI::App& app) {
  auto run = std::make_shared<std::string>();
  CLI::App* command = app.add_subcommand("report", "One self-contained HTML page of a run");
  command->add_option("run", *run, "run folder")->required();
  command->footer("Example: halo report runs/demo");
  command->callback([run] {
    write_report(*run);
    std::cout << *run << "/report.html\n";
  });
}

}  // namespace halo
