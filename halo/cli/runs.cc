// halo status, halo branch: a run folder at any moment, and another one that begins within it.
#include <iostream>

#include "halo/cli/commands.h"
#include "halo/pipeline/convert.h"
#include "halo/pipeline/run_folder.h"
#include "halo/pipeline/status.h"

namespace halo {

void add_runs(CLI::App& app) {
  struct Args {
    std::string run, stage, to;
    bool json = false;
  };
  auto args = std::make_shared<Args>();
  CLI::App* status = app.add_subcommand(
      "status", "Where a run is: stage, step, rate, gates so far, what is not up to date, disk");
  status->add_option("run", args->run, "run folder")->required();
  status->add_flag("--json", args->json, "print JSON");
  status->footer("Example: halo status runs/demo");
  status->callback([args] {
    const json::object found = run_status(args->run);
    std::cout << (args->json ? format_json(found) + "\n" : format_status(found));
  });

  CLI::App* branch_command = app.add_subcommand(
      "branch",
      "A new run with the finished stages before a stage, to compare variants from there");
  branch_command->add_option("from", args->run, "run folder")->required();
  branch_command->add_option("stage", args->stage, "the first stage that the new run does itself")
      ->required();
  branch_command->add_option("--run", args->to, "the new run folder")->required();
  branch_command->footer("Example: halo branch runs/demo distill --run runs/demo-2");
  branch_command->callback([args] {
    branch(args->run, args->stage, args->to);
    const std::string recipe = (std::filesystem::path(args->to) / kResolvedRecipe).string();
    std::cout << fmt::format(
        "{}: edit its recipe, then go on with\n{}\n", recipe,
        shell_line({"halo", "convert", recipe, "--run", args->to, "--resume"}));
  });
}

}  // namespace halo
