// halo pretrain: a small Transformer from nothing.
#include "halo/pipeline/pretrain.h"

#include "halo/cli/commands.h"
#include "halo/runtime/ranks.h"

namespace halo {

void add_pretrain(CLI::App& app) {
  struct Args {
    std::string recipe, run;
    std::vector<std::string> set;
  };
  auto args = std::make_shared<Args>();
  CLI::App* command = app.add_subcommand(
      "pretrain", "Train a byte-level BPE and a small Qwen3-like Transformer from nothing");
  command->add_option("recipe", args->recipe, "RECIPE.toml")->required();
  command->add_option("--run", args->run, "run folder; an unfinished run in it is resumed")
      ->required();
  add_recipe_options(*command, args->set);
  command->footer("Example: halo pretrain configs/recipes/demo-teacher.toml --run runs/teacher");
  command->callback([args] {
    const PretrainRecipe recipe = read_pretrain_recipe(args->recipe, args->set);
    run_ranks(recipe.run, [&](Communicator& ranks) { pretrain(recipe, args->run, ranks); });
  });
}

}  // namespace halo
