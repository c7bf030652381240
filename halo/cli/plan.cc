// halo plan: what a conversion will take; halo doctor: what this machine offers.
#include "halo/pipeline/plan.h"

#include <iostream>
#include <thread>

#include "ATen/Parallel.h"
#include "halo/base/options.h"
#include "halo/base/progress.h"
#include "halo/base/settings_io.h"
#include "halo/cli/commands.h"
#include "halo/pipeline/checks.h"
#include "halo/pipeline/fit.h"
#include "halo/runtime/machine.h"

namespace halo {
namespace {

// A declaration keeps a view of its help.
const std::string kCardHelp =
    fmt::format("a GPU in place of this machine, if not --memory and --gflops: {}",
                fmt::join(card_names(), " | "));

struct PlanArgs {
  std::string recipe, card;
  std::vector<std::string> set;
  double memory = 0, gflops = 0;
  int64_t gpus = 0;
  bool json = false, keys = false;

  void settings(Settings& s) {
    s("card", card, {.help = kCardHelp});
    s("gpus", gpus,
      {.help = "plan for that many, with the cheapest setting that fits them", .max = 1024});
    s("memory", memory, {.help = "GiB of memory of the device, in place of its own", .max = 1e6});
    s("gflops", gflops,
      {.help = "GFLOP/s of its matrix products, in place of its own", .max = 1e12});
  }
};

// Of this machine, but for what is given.
Capacity capacity_for(const RunRecipe& run, const PlanArgs& args) {
  Capacity capacity;
  if (!args.card.empty()) {
    capacity = card_capacity(args.card, run);
  } else if (args.memory == 0 || args.gflops == 0) {
    capacity = measure_capacity(run);
  }
  if (args.gflops > 0) capacity.rates.matrix_gflops = args.gflops;
  if (args.memory > 0) {
    capacity.machine = "the machine given";
    capacity.memory_bytes = static_cast<int64_t>(args.memory * double(int64_t{1} << 30));
  }
  return capacity;
}

// The recipe, for args.gpus ranks with what makes it fit them; says which settings these are.
Recipe recipe_for(const Recipe& recipe, const PlanArgs& args, const Capacity& capacity,
                  json::array& settings) {
  if (args.gpus == 0) return recipe;
  Recipe out = recipe;
  const auto cheapest = cheapest_setting(out, capacity);
  if (!cheapest) return out;
  for (const std::string& assignment : *cheapest) {
    set_setting(out, assignment);
    settings.push_back(json::value_from(assignment));
  }
  return out;
}

std::string format_settings(const PlanArgs& args, const json::array& settings) {
  if (args.gpus == 0) return "";
  std::string out = fmt::format("for {} GPUs:", args.gpus);
  for (const json::value& setting : settings) out += " --set " + std::string(setting.as_string());
  if (settings.empty()) out += " the recipe as it is";
  const char* source = args.card.empty() ? "this machine" : "the card's data sheet";
  return out + fmt::format("\na prediction from {}\n", source);
}

}  // namespace

void add_plan(CLI::App& app) {
  auto args = std::make_shared<PlanArgs>();
  CLI::App* command = app.add_subcommand(
      "plan", "Check a recipe; FLOPs, time, memory and disk of every stage before anything runs");
  command->add_option("recipe", args->recipe, "RECIPE.toml");
  add_recipe_options(*command, args->set);
  add_options(*command, *args);
  command->add_flag("--json", args->json, "print JSON");
  command->add_flag("--keys", args->keys, "print every recipe key with its default");
  command->footer("Example: halo plan demo/demo.toml");
  command->callback([args] {
    if (args->keys) {
      std::cout << settings_help(Recipe());
      return;
    }
    if (args->recipe.empty()) throw UsageError("halo plan: RECIPE.toml is missing");
    std::vector<std::string> set = args->set;
    if (args->gpus > 0) set.push_back(fmt::format("run.ranks={}", args->gpus));
    const Recipe given = read_recipe(args->recipe, set);
    const std::vector<std::string> unchecked = check_ahead(given, Missing::kNoted);
    const Capacity capacity = capacity_for(given.run, *args);
    json::array settings;
    const Recipe recipe = recipe_for(given, *args, capacity, settings);
    json::object result = plan(recipe, capacity.rates, capacity.links);
    const json::object fit = check_fit(recipe, result, capacity);
    result["settings"] = settings;
    result["fit"] = fit;
    result["unchecked"] = json::value_from(unchecked);
    std::cout << (args->json
                      ? format_json(result) + "\n"
                      : format_plan(result) + format_fit(fit) + format_settings(*args, settings));
    if (!args->json) {
      for (const std::string& sentence : unchecked)
        std::cout << "not looked at: " << sentence << "\n";
    }
    if (!fit.at("fits").as_bool()) {
      throw DoesNotFit(fmt::format("{}: the recipe is valid, but does not fit {}", args->recipe,
                                   capacity.machine));
    }
  });
}

void add_doctor(CLI::App& app) {
  auto as_json = std::make_shared<bool>(false);
  CLI::App* command = app.add_subcommand("doctor", "What this machine offers halo");
  command->add_flag("--json", *as_json, "print JSON");
  command->footer("Example: halo doctor");
  command->callback([as_json] {
    const Progress phase("measuring this machine");
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
