// halo plan: what a conversion will take; halo doctor: what this machine offers.
#include "halo/pipeline/plan.h"

#include <iostream>
#include <thread>

#include "ATen/Parallel.h"
#include "halo/base/settings_io.h"
#include "halo/cli/commands.h"
#include "halo/runtime/machine.h"

namespace halo {

void add_plan(CLI::App& app) {
  struct Args {
    std::string recipe;
    std::vector<std::string> set;
    bool json = false, keys = false;
  };
  auto args = std::make_shared<Args>();
  CLI::App* command = app.add_subcommand(
      "plan", "Check a recipe; FLOPs, time, memory and disk of every stage before anything runs");
  command->add_option("recipe", args->recipe, "RECIPE.toml");
  add_recipe_options(*command, args->set);
  command->add_flag("--json", args->json, "print JSON");
  command->add_flag("--keys", args->keys, "print every recipe key with its default");
  command->footer("Example: halo plan demo/demo.toml");
  command->callback([args] {
    if (args->keys) {
      std::cout << settings_help(Recipe());
      return;
    }
    if (args->recipe.empty()) throw UsageError("halo plan: RECIPE.toml is missing");
    const Recipe recipe = read_recipe(args->recipe, args->set);
    const json::object result = plan(recipe, measure_matrix_gflops(open_machine(recipe.run)));
    std::cout << (args->json ? format_json(result) + "\n" : format_plan(result));
  });
}

void add_doctor(CLI::App& app) {
  auto as_json = std::make_shared<bool>(false);
  CLI::App* command = app.add_subcommand("doctor", "What this machine offers halo");
  command->add_flag("--json", *as_json, "print JSON");
  command->footer("Example: halo doctor");
  command->callback([as_json] {
    const Machine cpu = open_machine(MachineRecipe());
    json::object out{{"version", HALO_VERSION},
                     {"device", cpu.device_name},
                     {"threads", at::get_num_threads()},
                     {"matrix_gflops", measure_matrix_gflops(cpu)}};
    MachineRecipe cuda;
    cuda.device = at::kCUDA;
    try {
      open_machine(cuda);
      out["cuda"] = "usable";
    } catch (const Error& error) {
      out["cuda"] = error.what();
    }
    if (*as_json) {
      std::cout << format_json(out) << "\n";
      return;
    }
    for (const auto& [key, value] : out) {
      std::cout << fmt::format(
          "{:<14} {}\n", std::string(key),
          value.is_string() ? std::string(value.as_string()) : json::serialize(value));
    }
  });
}

}  // namespace halo
