// halo completion, halo man: what a shell and `man` know of the commands, made from the options
// that the commands declare. `make install` writes both where they are looked for.
#include <iostream>

#include "halo/cli/command_tree.h"
#include "halo/cli/commands.h"
#include "halo/cli/version.h"

namespace halo {

void add_documentation(CLI::App& app) {
  auto shell = std::make_shared<std::string>();
  CLI::App* completion =
      app.add_subcommand("completion", "Print a script that completes commands and options");
  completion->add_option("shell", *shell, "bash | zsh | fish")->required();
  completion->footer(
      "Example: halo completion bash > ~/.local/share/bash-completion/completions/halo");
  completion->callback([shell, &app] { std::cout << make_completion(read_commands(app), *shell); });

  CLI::App* man = app.add_subcommand("man", "Print the manual page: every command and option");
  man->footer("Example: halo man | man -l -");
  man->callback(
      [&app] { std::cout << make_man_page(read_commands(app), std::string(version_line())); });
}

}  // namespace halo
