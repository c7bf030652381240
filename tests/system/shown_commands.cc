#include "tests/system/shown_commands.h"

#include <map>
#include <sstream>

#include "halo/base/check.h"
#include "halo/base/files.h"

namespace halo::system_test {
namespace {

void add_command(std::string text, int line, bool in_block, std::vector<ShownCommand>* out) {
  text.erase(0, text.find_first_not_of(' '));
  if (text.starts_with("build/")) text.erase(0, 6);
  if (!text.starts_with("halo ")) return;
  Words words = shell_words(text);
  words.erase(words.begin());
  if (!words.empty()) out->push_back({line, in_block, words});
}

// `halo data` has commands of its own.
size_t command_words(const Words& words) {
  const bool nested = words.front() == "data" || words.front() == "bench";
  return nested && words.size() > 1 ? 2 : 1;
}

// The help of a command; empty: there is no such command.
const std::string& help_of(const Words& command) {
  static std::map<Words, std::string> known;
  const auto [at, is_new] = known.try_emplace(command);
  if (is_new) {
    Words words = command;
    words.push_back("--help");
    const Outcome outcome = run_halo(words);
    // Of an unknown command the program's own help is printed.
    const bool is_its =
        outcome.out.find(fmt::format("halo {}", fmt::join(command, " "))) != std::string::npos;
    if (outcome.code == 0 && is_its) at->second = outcome.out;
  }
  return at->second;
}

bool has_option(const std::string& help, const std::string& option) {
  for (size_t at = 0; (at = help.find(option, at)) != std::string::npos; at += option.size()) {
    const char after = help[at + option.size()];
    const char before = at == 0 ? ' ' : help[at - 1];
    if (!isalnum(after) && after != '-' && before != '-') return true;
  }
  return false;
}

}  // namespace

std::string ShownCommand::text() const {
  return fmt::format("line {}: halo {}", line, fmt::join(words, " "));
}

std::vector<ShownCommand> shown_commands(const fs::path& page) {
  std::vector<ShownCommand> out;
  std::istringstream lines(read_file(page));
  bool in_block = false, left_out = false;
  int number = 0;
  for (std::string line; std::getline(lines, line);) {
    const int first = ++number;
    if (line.starts_with("## ")) left_out = line == "## Not there";
    if (line.starts_with("```")) {
      in_block = !in_block;
    } else if (in_block || line.starts_with("    ")) {
      for (std::string more; line.ends_with('\\') && std::getline(lines, more); ++number) {
        line.replace(line.size() - 1, 1, " " + more);
      }
      add_command(line, first, true, &out);
    } else if (!left_out) {
      for (size_t at = line.find('`'); at != std::string::npos; at = line.find('`', at)) {
        const size_t end = line.find('`', at + 1);
        if (end == std::string::npos) break;
        add_command(line.substr(at + 1, end - at - 1), first, false, &out);
        at = end + 1;
      }
    }
  }
  return out;
}

Words shell_words(const std::string& line) {
  Words words;
  bool in_word = false;
  char quote = 0;
  for (const char c : line) {
    if (quote != 0) {
      if (c == quote) {
        quote = 0;
      } else {
        words.back() += c;
      }
      continue;
    }
    if (c == ' ' || c == '\t') {
      in_word = false;
      continue;
    }
    if (!in_word && c == '#') break;
    if (!in_word) words.emplace_back();
    in_word = true;
    if (c == '\'' || c == '"') {
      quote = c;
    } else {
      words.back() += c;
    }
  }
  return words;
}

std::string wrong_usage(const ShownCommand& command) {
  if (command.words.front() == "COMMAND" || command.words.front() == "...") return "";  // any
  const Words name(command.words.begin(), command.words.begin() + command_words(command.words));
  const std::string& help = help_of(name);
  if (help.empty()) return fmt::format("there is no command '{}'", fmt::join(name, " "));
  for (const std::string& word : command.words) {
    if (word.starts_with("--") && !has_option(help, word)) {
      return fmt::format("'{}' has no option {}", fmt::join(name, " "), word);
    }
  }
  return "";
}

}  // namespace halo::system_test
