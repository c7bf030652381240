// halo sweep: a matrix of runs, and the table of what came of them.
#include "halo/pipeline/sweep.h"

#include <iostream>

#include "halo/base/files.h"
#include "halo/cli/commands.h"

namespace halo {

void add_sweep(CLI::App& app) {
  struct Args {
    SweepArgs sweep;
    bool json = false;
  };
  auto args = std::make_shared<Args>();
  CLI::App* command = app.add_subcommand(
      "sweep", "Runs of one recipe with settings varied, sharing stages, and a table of them");
  command->add_option("file", args->sweep.file, "SWEEP.toml")->required();
  command->add_option("--out", args->sweep.out, "folder of the runs; what is there goes on")
      ->required();
  command->add_option("--jobs", args->sweep.jobs, "runs at once; those on one GPU take turns")
      ->check(CLI::Range(int64_t{1}, int64_t{1024}))
      ->capture_default_str();
  add_recipe_options(*command, args->sweep.set);
  command->add_flag("--json", args->json, "print JSON");
  command->footer(
      "Examples: halo sweep configs/sweeps/learning-rate.toml --out runs/rates\n"
      "          halo sweep configs/sweeps/ablations.toml --out runs/ablations --device cuda");
  command->callback([args] {
    args->sweep.program = std::filesystem::read_symlink("/proc/self/exe").string();
    const json::object result = sweep(args->sweep);
    std::cout << (args->json ? format_json(result) + "\n" : sweep_table(result));
  });
}

}  // namespace halo
