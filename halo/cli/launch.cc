// halo launch: the ranks of a command, a process each.
#include "halo/runtime/launch.h"

#include "halo/cli/commands.h"
#include "halo/runtime/communicator.h"

namespace halo {

void add_launch(CLI::App& app) {
  auto args = std::make_shared<LaunchArgs>();
  CLI::App* command = app.add_subcommand(
      "launch", "Run a command on several ranks of this machine: a process, and a GPU, each");
  command->add_option("-n,--ranks", args->ranks, "how many")
      ->required()
      ->check(CLI::Range(1, 1024));
  command
      ->add_option("--max-restarts", args->max_restarts,
                   "how often all start again, from the newest checkpoint, after one was lost")
      ->check(CLI::Range(0, 1'000'000));
  command->add_option("command", args->command, "behind --: a command of halo")->required();
  command->footer("Example: halo launch -n 2 -- convert demo/demo.toml --run runs/demo");
  command->callback([args] {
    const int code = launch(*args);
    if (code != 0) throw GroupEnded("", code);
  });
}

}  // namespace halo
