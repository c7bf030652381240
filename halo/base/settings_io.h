// Settings as TOML, --set, JSON and help.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "halo/base/check.h"
#include "halo/base/json.h"
#include "halo/base/settings.h"

namespace halo {

// `file` is used in messages. An unknown key, a wrong kind, a number out of bounds and an unknown
// word are Errors that name file, line, key and what would be right ("recipes/x.toml:12:
// align.tokns: unknown key; did you mean 'tokens'?"). Keys and words that have another spelling
// now are read, with one warning a file.
void read_toml(const Settings& settings, const std::string& text, const std::string& file);
// What the program wrote itself, so nobody is warned.
void read_json_settings(const Settings& settings, const json::object& object,
                        const std::string& file);
// "align.tokens=1000": the value is read as TOML, or as a bare string where it is none.
void set_setting(const Settings& settings, std::string_view assignment);
// A value as typed on the command line; an Error that says what is expected.
void read_word(const Setting& setting, const std::string& word);

json::object to_json(const Settings& settings);
// TOML text that read_toml reads back to equal values.
std::string to_toml(const Settings& settings);
std::string value_to_toml(const Setting& setting);
// "align.tokens  (500000)  training tokens" a line each; with a " *" what has Effect::kNone.
std::string settings_help(const Settings& settings);
// "0 to 1", "cpu | cuda"; empty where anything sensible will do.
std::string allowed_values(const Setting& setting);

struct Difference {
  std::string key, before, now;  // values as TOML
  Effect effect;
};
// What differs between two lists of one struct.
std::vector<Difference> differences(const Settings& before, const Settings& now);

// The same of an object.
template <HasSettings T>
void read_toml(T& object, const std::string& text, const std::string& file) {
  read_toml(settings_of(object), text, file);
}
template <HasSettings T>
void set_setting(T& object, std::string_view assignment) {
  set_setting(settings_of(object), assignment);
}
// What writes takes a copy, since settings() lists members that can be set.
template <HasSettings T>
json::object to_json(T object) {
  return to_json(settings_of(object));
}
template <HasSettings T>
std::string to_toml(T object) {
  return to_toml(settings_of(object));
}
template <HasSettings T>
std::string settings_help(T object) {
  return settings_help(settings_of(object));
}
template <HasSettings T>
std::vector<Difference> differences(T before, T now) {
  return differences(settings_of(before), settings_of(now));
}

}  // namespace halo
