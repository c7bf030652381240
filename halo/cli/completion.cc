// Completion scripts for bash, zsh and fish, whole: completing starts no halo, which would have to
// load LibTorch first.
#include <fmt/format.h>

#include <algorithm>

#include "halo/base/check.h"
#include "halo/cli/command_tree.h"

namespace halo {
namespace {

// 'text' for a shell. For zsh's _arguments colons and brackets have meanings too.
std::string quote(const std::string& text, const char* escaped = "") {
  std::string out = "'";
  for (const char c : text) {
    if (std::string_view(escaped).find(c) != std::string_view::npos) out += '\\';
    out += c == '\'' ? std::string("'\\''") : std::string(1, c);
  }
  return out + "'";
}

// Help is one line in a menu.
std::string first_line(const std::string& text) {
  return text.substr(0, text.find('\n'));
}

std::vector<std::string> child_names(const CommandText& command) {
  std::vector<std::string> names;
  for (const CommandText& child : command.commands) names.push_back(child.name);
  return names;
}

// 'halo data'|'halo data pack': a shell pattern of all commands but the program itself.
std::string command_pattern(const CommandText& program, const char* separator) {
  std::vector<std::string> paths;
  for (const CommandText* command : list_commands(program)) paths.push_back(quote(command->path));
  paths.erase(paths.begin());
  return fmt::format("{}", fmt::join(paths, separator));
}

std::string quoted_words(const std::vector<std::string>& words) {
  return quote(fmt::format("{}", fmt::join(words, " ")));
}

std::string bash_completion(const CommandText& program) {
  std::string commands, values;
  for (const CommandText* command : list_commands(program)) {
    std::vector<std::string> words = child_names(*command), options;
    for (const OptionText& option : command->options) {
      if (option.positional) {
        words.insert(words.end(), option.choices.begin(), option.choices.end());
        continue;
      }
      options.insert(options.end(), option.names.begin(), option.names.end());
      if (!option.takes_value) continue;
      std::vector<std::string> patterns;
      for (const std::string& name : option.names) {
        patterns.push_back(quote(command->path + " " + name));
      }
      values += fmt::format("    {}) words={} options='' ;;\n", fmt::join(patterns, "|"),
                            quoted_words(option.choices));
    }
    commands += fmt::format("    {}) words={} options={} ;;\n", quote(command->path),
                            quoted_words(words), quoted_words(options));
  }
  // The second `case` overrules the first after an option that takes a value. No match leaves bash
  // to complete file names (-o default).
  return fmt::format(R"(# bash completion for halo, made by `halo completion bash`.
_halo() {{
  local current=${{COMP_WORDS[COMP_CWORD]}} previous=${{COMP_WORDS[COMP_CWORD - 1]}}
  local command=halo words="" options="" i
  for ((i = 1; i < COMP_CWORD; ++i)); do
    case "$command ${{COMP_WORDS[i]}}" in
      {}) command+=" ${{COMP_WORDS[i]}}" ;;
    esac
  done
  case $command in
{}  esac
  case "$command $previous" in
{}  esac
  [[ $current == -* ]] && words=$options
  mapfile -t COMPREPLY < <(compgen -W "$words" -- "$current")
}}
complete -o default -F _halo halo
)",
                     command_pattern(program, "|"), commands, values);
}

std::string zsh_function(const CommandText& command) {
  std::string name = "_" + command.path;
  std::replace(name.begin(), name.end(), ' ', '_');
  return name;
}

std::string zsh_choices(const std::vector<std::string>& choices) {
  return fmt::format("({})", fmt::join(choices, " "));
}

// '--compute[float32 or bfloat16]:value:(float32 bfloat16)', one a name of the option. A bracket in
// the help would end it.
std::string zsh_option(const OptionText& option, const std::string& name) {
  std::string help = first_line(option.help);
  std::replace(help.begin(), help.end(), '[', '(');
  std::replace(help.begin(), help.end(), ']', ')');
  std::string spec = quote(fmt::format("{}[{}]", name, help), ":");
  spec.pop_back();
  if (option.takes_value) {
    spec += ":value:" + (option.choices.empty() ? "_files" : zsh_choices(option.choices));
  }
  return " \\\n    " + spec + "'";
}

// The body of a command that has others below it: which one, then what that one takes.
std::string zsh_branch(const CommandText& command, const std::string& options) {
  std::string names, calls;
  for (const CommandText& child : command.commands) {
    names += "\n    " + quote(fmt::format("{}:{}", child.name, first_line(child.help)));
    calls += fmt::format("\n    {}) {} ;;", child.name, zsh_function(child));
  }
  return fmt::format(R"(  local curcontext=$curcontext state line
  local -a commands=({})
  _arguments -C{} \
    '1: :->command' '*:: :->rest'
  case $state in
    command) _describe command commands; return ;;
    rest) ;;
    *) return ;;
  esac
  case $words[1] in{}
  esac
)",
                     names, options, calls);
}

std::string zsh_completion(const CommandText& program) {
  std::string out = "#compdef halo\n# zsh completion for halo, made by `halo completion zsh`.\n";
  for (const CommandText* command : list_commands(program)) {
    std::string options, argument = "_files";
    for (const OptionText& option : command->options) {
      if (option.positional && !option.choices.empty()) argument = zsh_choices(option.choices);
      if (option.positional) continue;
      for (const std::string& name : option.names) options += zsh_option(option, name);
    }
    const std::string body =
        command->commands.empty()
            ? fmt::format("  _arguments{} \\\n    '*:argument:{}'\n", options, argument)
            : zsh_branch(*command, options);
    out += fmt::format("\n{}() {{\n{}}}\n", zsh_function(*command), body);
  }
  return out + "\n_halo \"$@\"\n";
}

std::string fish_completion(const CommandText& program) {
  std::string out = fmt::format(R"(# fish completion for halo, made by `halo completion fish`.
function __halo_at
    set -l command halo
    for word in (commandline -opc)[2..]
        switch "$command $word"
            case {}
                set command "$command $word"
        end
    end
    test "$command" = "$argv"
end
)",
                                command_pattern(program, " "));
  for (const CommandText* command : list_commands(program)) {
    const std::string at = fmt::format("complete -c halo -n '__halo_at {}'", command->path);
    for (const CommandText& child : command->commands) {
      out += fmt::format("{} -f -a {} -d {}\n", at, child.name, quote(first_line(child.help)));
    }
    for (const OptionText& option : command->options) {
      if (option.positional) {
        if (!option.choices.empty()) {
          out += fmt::format("{} -f -a {}\n", at, quoted_words(option.choices));
        }
        continue;
      }
      out += at;
      for (const std::string& name : option.names) {
        out += name[1] == '-' ? " -l " + name.substr(2) : " -s " + name.substr(1);
      }
      if (option.takes_value) out += " -r";
      if (!option.choices.empty()) {
        out += fmt::format(" -f -a {}", quoted_words(option.choices));
      }
      out += fmt::format(" -d {}\n", quote(first_line(option.help)));
    }
  }
  return out;
}

}  // namespace

std::string make_completion(const CommandText& program, const std::string& shell) {
  if (shell == "bash") return bash_completion(program);
  if (shell == "zsh") return zsh_completion(program);
  if (shell == "fish") return fish_completion(program);
  throw UsageError(fmt::format("halo completion: '{}' is not bash, zsh or fish", shell));
}

}  // namespace halo
