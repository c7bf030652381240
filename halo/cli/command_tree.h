// What the program declares, as plain data: the one source of its completions and its manual page.
#pragma once

#include <CLI/CLI.hpp>
#include <string>
#include <vector>

namespace halo {

struct OptionText {
  std::vector<std::string> names;  // "-o", "--out"; a positional has one, without dashes
  std::string help;
  std::vector<std::string> choices;  // the words that are allowed, if they are few
  bool positional = false;
  bool takes_value = false;
  bool required = false;
};

struct CommandText {
  std::string path;  // "halo data pack"
  std::string name;  // "pack"
  std::string help, example;
  std::vector<OptionText> options;
  std::vector<CommandText> commands;
};

CommandText read_commands(const CLI::App& app);

// `command` and all below it, parents first.
std::vector<const CommandText*> list_commands(const CommandText& command);

// A script for `shell` (bash, zsh or fish) that completes commands, options and choices.
std::string make_completion(const CommandText& program, const std::string& shell);

// One page for the program and all its commands, in the language of man(7).
std::string make_man_page(const CommandText& program, const std::string& version_line);

}  // namespace halo
