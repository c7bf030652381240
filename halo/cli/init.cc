// halo init: a recipe for a model, text and this machine.
#include "halo/pipeline/init.h"

#include <iostream>

#include "halo/base/files.h"
#include "halo/cli/commands.h"
#include "halo/runtime/machine.h"

namespace halo {
namespace {

// A GPU in bf16 if there is one, else the CPU in fp32.
RunRecipe choose_run(const std::string& device) {
  RunRecipe run;
  run.device = at::kCUDA;
  run.compute = at::kBFloat16;
  if (device == "cuda") return run;
  try {
    if (device.empty()) {
      open_machine(run);
      return run;
    }
  } catch (const Error&) {
  }
  return {};
}

}  // namespace

void add_init(CLI::App& app) {
  struct Args {
    std::string teacher, device, out;
    std::vector<std::string> data;
  };
  auto args = std::make_shared<Args>();
  CLI::App* command = app.add_subcommand(
      "init", "Write a recipe for a model: rates by its size, rows by this machine's memory");
  command->add_option("teacher", args->teacher, "model directory (config.json is enough)")
      ->required();
  command->add_option("--data", args->data, "token shards, or text that is to be packed")
      ->required();
  command->add_option("--device", args->device, "cpu | cuda; default: a GPU if there is one")
      ->check(CLI::IsMember({"cpu", "cuda"}));
  command->add_option("--out", args->out, "RECIPE.toml to make; default: standard output");
  command->footer(
      "Example: halo init demo/teacher --data train-shards held-out-shards --out recipe.toml");
  command->callback([args] {
    if (!args->out.empty() && std::filesystem::exists(args->out)) {
      throw_error("{}: already there; remove it or use another --out", args->out);
    }
    const RunRecipe run = choose_run(args->device);
    const InitialRecipe recipe =
        make_recipe({args->teacher, args->data, run, measure_capacity(run)});
    if (args->out.empty()) {
      std::cout << recipe.text;
    } else {
      write_file(args->out, recipe.text);
    }
    for (const std::string& note : recipe.notes) std::cerr << note << "\n";
  });
}

}  // namespace halo
