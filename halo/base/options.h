// Settings as command-line options.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "halo/base/settings.h"

namespace CLI {
class App;
}  // namespace CLI

namespace halo {

// "--max-tokens" of "run.max_tokens".
std::string option_name(const Setting& setting);

// One option a setting: "max_tokens" is --max-tokens, a switch --cuda-graphs and --no-cuda-graphs;
// the sections' names are left out. Help, default, words and bounds are the declaration's. What the
// settings refer to must outlive the parsing.
void add_options(CLI::App& app, const Settings& settings);
template <HasSettings T>
void add_options(CLI::App& app, T& object) {
  add_options(app, settings_of(object));
}

// The same over a section of a recipe: what is given is added to `set` as "SECTION.key=value".
// `object`, which the settings refer to, is kept to check the values.
void add_overrides(CLI::App& app, const Settings& settings, std::shared_ptr<void> object,
                   const std::string& section, std::vector<std::string>& set);
template <HasSettings T>
void add_overrides(CLI::App& app, const std::string& section, std::vector<std::string>& set) {
  auto object = std::make_shared<T>();
  add_overrides(app, settings_of(*object), object, section, set);
}

}  // namespace halo
