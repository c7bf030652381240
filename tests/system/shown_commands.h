// The `halo` commands that a page of the documentation shows.
#pragma once

#include "tests/system/world.h"

namespace halo::system_test {

struct ShownCommand {
  int line = 0;  // of the page, from 1
  bool in_block = false;
  Words words;  // without "halo"
  std::string text() const;
};

// Those of fenced blocks (lines that begin with "halo " or "build/halo ") and of code spans, in the
// order of the page; the section "Not there" aside. A line that ends in a backslash goes on.
std::vector<ShownCommand> shown_commands(const fs::path& page);

// What a shell makes of a line: words, with single and double quotes and # comments.
Words shell_words(const std::string& line);

// What is wrong with a command by `--help` alone: no such command, no such option. Empty: nothing.
std::string wrong_usage(const ShownCommand& command);

}  // namespace halo::system_test
