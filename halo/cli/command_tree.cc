#include "halo/cli/command_tree.h"

#include <algorithm>

namespace halo {
namespace {

// A type name lists what is allowed, "cpu|cuda" or CLI11's own "TEXT:{cpu,cuda}"; so does help that
// begins with "cpu | cuda".
std::vector<std::string> read_choices(const CLI::Option& option) {
  std::string text = option.get_type_name();
  if (const size_t open = text.find('{'); open != std::string::npos) {
    text = text.substr(open, text.find('}', open) - open);
  } else if (text.find('|') == std::string::npos) {
    text = option.get_description();
    text = text.substr(0, text.find_first_of(",;:("));
    if (text.find(" | ") == std::string::npos) return {};
  }
  const char* const separators = " ,|{";
  std::vector<std::string> choices;
  for (size_t begin = text.find_first_not_of(separators); begin != std::string::npos;) {
    const size_t end = std::min(text.find_first_of(separators, begin), text.size());
    choices.push_back(text.substr(begin, end - begin));
    begin = text.find_first_not_of(separators, end);
  }
  return choices;
}

OptionText read_option(const CLI::Option& option) {
  OptionText text;
  for (const std::string& name : option.get_snames()) text.names.push_back("-" + name);
  for (const std::string& name : option.get_lnames()) text.names.push_back("--" + name);
  text.positional = text.names.empty();
  if (text.positional) text.names.push_back(option.get_name());
  text.help = option.get_description();
  text.takes_value = option.get_expected_max() > 0;
  if (text.takes_value) text.choices = read_choices(option);
  text.required = option.get_required();
  return text;
}

CommandText read_command(const CLI::App& app, const std::string& parent) {
  CommandText command;
  command.name = app.get_name();
  command.path = parent + command.name;
  command.help = app.get_description();
  command.example = app.get_footer();
  for (const CLI::Option* option : app.get_options()) {
    // An empty group hides an option.
    if (!option->get_group().empty()) command.options.push_back(read_option(*option));
  }
  for (const CLI::App* child : app.get_subcommands({})) {
    if (!child->get_group().empty()) {
      command.commands.push_back(read_command(*child, command.path + " "));
    }
  }
  return command;
}

void collect(const CommandText& command, std::vector<const CommandText*>* out) {
  out->push_back(&command);
  for (const CommandText& child : command.commands) collect(child, out);
}

}  // namespace

CommandText read_commands(const CLI::App& app) {
  return read_command(app, "");
}

std::vector<const CommandText*> list_commands(const CommandText& command) {
  std::vector<const CommandText*> out;
  collect(command, &out);
  return out;
}

}  // namespace halo
