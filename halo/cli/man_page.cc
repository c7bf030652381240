#include <fmt/format.h>

#include "halo/cli/command_tree.h"

namespace halo {
namespace {

// Text for man(7): a dash is a dash, and no line begins with a dot or a quote.
std::string escape(const std::string& text) {
  std::string out;
  for (const char c : text) {
    if ((c == '.' || c == '\'') && (out.empty() || out.back() == '\n')) out += "\\&";
    if (c == '\\') {
      out += "\\e";
    } else if (c == '-') {
      out += "\\-";
    } else {
      out += c;
    }
  }
  return out;
}

std::string option_heading(const OptionText& option) {
  std::vector<std::string> names;
  for (const std::string& name : option.names) {
    names.push_back(option.positional ? "\\fI" + escape(name) + "\\fR"
                                      : "\\fB" + escape(name) + "\\fR");
  }
  std::string heading = fmt::format("{}", fmt::join(names, ", "));
  if (option.takes_value && !option.positional) {
    heading += option.choices.empty() ? " \\fIVALUE\\fR"
                                      : escape(fmt::format(" {}", fmt::join(option.choices, "|")));
  }
  return heading;
}

std::string option_entries(const CommandText& command, bool with_help) {
  std::string out;
  for (const OptionText& option : command.options) {
    if (!with_help && option.names.back() == "--help") continue;
    out += fmt::format(".TP\n{}\n{}{}\n", option_heading(option), escape(option.help),
                       option.required ? " (required)" : "");
  }
  return out;
}

// "halo align --out O \"$A\"" as it is to be typed, with its lines kept.
std::string example(const CommandText& command) {
  if (command.example.empty()) return "";
  return fmt::format(".PP\n.nf\n{}\n.fi\n", escape(command.example));
}

}  // namespace

std::string make_man_page(const CommandText& program, const std::string& version_line) {
  std::string out = fmt::format(
      ".TH HALO 1 \"\" \"{}\" \"User Commands\"\n"
      ".SH NAME\nhalo \\- turn a pretrained Transformer into a HypeNet, evaluate it and run it\n"
      ".SH SYNOPSIS\n.B halo\n.I COMMAND\n[\\fIOPTION\\fR ...]\n"
      ".SH DESCRIPTION\n{}\n{}.SH COMMANDS\n",
      escape(version_line), escape(program.help), option_entries(program, true));
  for (const CommandText* command : list_commands(program)) {
    if (command == &program) continue;
    out += fmt::format(".SS {}\n{}\n{}{}", escape(command->path), escape(command->help),
                       option_entries(*command, false), example(*command));
  }
  out +=
      ".SH EXIT STATUS\n"
      ".TP\n0\ndone\n"
      ".TP\n1\nwrong input, said in one sentence on standard error\n"
      ".TP\n2\nwrong usage\n"
      ".TP\n3\nstopped by a signal; a stage that trains saves its state first, and "
      ".B halo convert \\-\\-resume\ngoes on\n"
      ".TP\n4\na stage's gate was not passed, or a plan does not fit the memory\n";
  return out;
}

}  // namespace halo
