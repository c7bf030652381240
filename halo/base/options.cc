// Settings as options of CLI11.
#include "halo/base/options.h"

#include <CLI/CLI.hpp>
#include <algorithm>
#include <memory>

#include "halo/base/check.h"
#include "halo/base/settings_io.h"

namespace halo {
namespace {

bool is_list(const Setting& setting) {
  return std::holds_alternative<std::vector<int64_t>*>(setting.value) ||
         std::holds_alternative<std::vector<double>*>(setting.value) ||
         std::holds_alternative<std::vector<std::string>*>(setting.value);
}

// What stands behind the option in the help.
std::string type_name(const Setting& setting) {
  if (const auto* choice = std::get_if<Choice>(&setting.value)) {
    return fmt::format("{}", fmt::join(choice->words, "|"));
  }
  return is_list(setting) ? "VALUE,..." : "VALUE";
}

std::string description(const Setting& setting) {
  const bool is_words = std::holds_alternative<Choice>(setting.value);
  const std::string allowed = is_words ? "" : allowed_values(setting);
  return std::string(setting.about.help) + (allowed.empty() ? "" : " (" + allowed + ")");
}

// Empty where there is nothing to show.
std::string default_text(const Setting& setting) {
  std::string text = value_to_toml(setting);
  if (text == "[]") return "";
  std::erase(text, '"');
  return text;
}

using Take = std::function<void(const std::vector<std::string>&)>;

// Calls take(words) with what is given; what it throws is said of the option.
CLI::Option* add_option(CLI::App& app, const Setting& setting, const Take& take) {
  const std::string name = option_name(setting);
  const auto callback = [name, take](const CLI::results_t& words) {
    try {
      take(words);
    } catch (const Error& error) {
      throw UsageError(fmt::format("{}: {}", name, error.what()));
    }
    return true;
  };
  if (std::holds_alternative<bool*>(setting.value)) {
    const std::string off = "--no-" + name.substr(2);
    return app.add_flag_function(
        name + ",!" + off, [callback](int64_t count) { callback({count > 0 ? "true" : "false"}); },
        description(setting));
  }
  CLI::Option* option = app.add_option(name, callback, description(setting));
  option->type_name(type_name(setting));
  // A list is the option again and again, or, where no value can have a comma, one word with them.
  if (is_list(setting)) option->multi_option_policy(CLI::MultiOptionPolicy::TakeAll);
  if (is_list(setting) && !std::holds_alternative<std::vector<std::string>*>(setting.value)) {
    option->delimiter(',');
  }
  return option;
}

void clear_list(const Setting& setting) {
  std::visit(
      [](auto& member) {
        if constexpr (requires { member->clear(); }) member->clear();
      },
      setting.value);
}

}  // namespace

std::string option_name(const Setting& setting) {
  std::string name = setting.key.substr(setting.key.rfind('.') + 1);
  std::ranges::replace(name, '_', '-');
  return "--" + name;
}

void add_options(CLI::App& app, const Settings& settings) {
  for (const Setting& setting : settings.all()) {
    CLI::Option* option =
        add_option(app, setting, [setting](const std::vector<std::string>& words) {
          clear_list(setting);
          for (const std::string& word : words) read_word(setting, word);
        });
    if (const auto* flag = std::get_if<bool*>(&setting.value)) {
      option->description(description(setting) + (**flag ? " (on)" : " (off)"));
    } else {
      option->default_str(default_text(setting));
    }
  }
}

void add_overrides(CLI::App& app, const Settings& settings, std::shared_ptr<void> object,
                   const std::string& section, std::vector<std::string>& set) {
  for (const Setting& setting : settings.all()) {
    HALO_CHECK(!is_list(setting), "{}: a list has no option over a recipe", setting.key);
    add_option(app, setting,
               [setting, object, section, &set](const std::vector<std::string>& words) {
                 read_word(setting, words.back());
                 set.push_back(fmt::format("{}.{}={}", section, setting.key, words.back()));
               })
        ->group(fmt::format("Over the recipe's [{}]", section));
  }
}

}  // namespace halo
