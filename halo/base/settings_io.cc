// Reading and writing of settings.
#include "halo/base/settings_io.h"

#include <spdlog/spdlog.h>
#include <toml++/toml.h>

#include <algorithm>
#include <charconv>
#include <cmath>
#include <set>
#include <sstream>

#include "halo/base/nearest.h"

namespace halo {
namespace {

template <class... F>
struct Overloaded : F... {
  using F::operator()...;
};
template <class... F>
Overloaded(F...) -> Overloaded<F...>;

// A basic TOML string; JSON's escapes are TOML's but for DEL.
std::string quote(const std::string& text) {
  std::string out = json::serialize(json::value(text));
  for (size_t at = 0; (at = out.find('\x7f', at)) != std::string::npos; at += 6)
    out.replace(at, 1, "\\u007f");
  return out;
}

std::string format_bound(double bound) {
  if (std::abs(bound) >= 1e6 && bound == std::floor(bound) && bound <= kMaxCount)
    return fmt::format("{}", static_cast<int64_t>(bound));
  return fmt::format("{}", bound);
}

std::string format_bounds(const About& about) {
  const bool above = std::isfinite(about.min), below = std::isfinite(about.max);
  if (above && below) return format_bound(about.min) + " to " + format_bound(about.max);
  if (above) return "at least " + format_bound(about.min);
  return below ? "at most " + format_bound(about.max) : "";
}

constexpr auto kMaxInteger = static_cast<int64_t>(kMaxCount);

template <class T>
void check_bounds(const About& about, T value) {
  const auto number = static_cast<double>(value);
  // 2^53 + 1 is 2^53 as a double.
  const bool is_rounded_down =
      std::is_integral_v<T> && number == kMaxCount && static_cast<int64_t>(value) > kMaxInteger;
  if (number >= about.min && number <= about.max && !is_rounded_down) return;
  const std::string bounds = format_bounds(about);
  throw_error("expected {}, got {}", bounds.empty() ? "a number" : bounds, value);
}

std::vector<std::string> strings(const std::vector<std::string_view>& words) {
  return {words.begin(), words.end()};
}

// Sets the value that `word` stands for; returns the word that it has now where that is another.
std::string choose(const Choice& choice, const std::string& word) {
  for (size_t i = 0; i < choice.words.size(); ++i) {
    const bool old = !choice.was[i].empty() && word == choice.was[i];
    if (!old && word != choice.words[i]) continue;
    choice.set(i);
    return old ? std::string(choice.words[i]) : "";
  }
  throw_error("'{}' is unknown; did you mean '{}'? ({})", word,
              nearest(word, strings(choice.words)), fmt::join(choice.words, " | "));
}

[[noreturn]] void wrong_kind(const toml::node& node, std::string_view expected) {
  std::ostringstream kind;
  kind << node.type();
  throw_error("expected {}, got a value of type {}", expected, kind.str());
}

void read_node(bool& out, const toml::node& node, const About&) {
  const auto* value = node.as_boolean();
  if (value == nullptr) wrong_kind(node, "true or false");
  out = value->get();
}

void read_node(int64_t& out, const toml::node& node, const About& about) {
  const auto* value = node.as_integer();
  if (value == nullptr) wrong_kind(node, "an integer");
  check_bounds(about, value->get());
  out = value->get();
}

void read_node(double& out, const toml::node& node, const About& about) {
  if (!node.is_number()) wrong_kind(node, "a number");
  check_bounds(about, *node.value<double>());
  out = *node.value<double>();
}

void read_node(std::string& out, const toml::node& node, const About&) {
  const auto* value = node.as_string();
  if (value == nullptr) wrong_kind(node, "a string");
  out = value->get();
}

template <class T>
void read_node(std::vector<T>& out, const toml::node& node, const About& about) {
  const toml::array* array = node.as_array();
  if (array == nullptr) wrong_kind(node, "an array");
  std::vector<T> read(array->size());
  for (size_t i = 0; i < array->size(); ++i) {
    try {
      read_node(read[i], *array->get(i), about);
    } catch (const Error& error) {
      throw_error("entry {}: {}", i, error.what());
    }
  }
  out = std::move(read);
}

// A table read into settings. `has_lines`: it comes from a file of TOML.
class TableReader {
 public:
  TableReader(const Settings& settings, const std::string& file, bool has_lines)
      : settings_(settings), file_(file), has_lines_(has_lines) {}

  void read(const toml::table& table, const std::string& prefix = "") {
    for (const auto& entry : table) {
      const std::string_view name = entry.first.str();
      const toml::node& node = entry.second;
      const std::string key = prefix + std::string(name);
      if (const Setting* setting = settings_.find(key)) {
        read_setting(*setting, node, key);
      } else if (const Setting* renamed = settings_.find_old(key)) {
        renamed_.push_back(fmt::format("{} is {} now", key, renamed->key));
        read_setting(*renamed, node, key);
      } else if (is_section(key + ".")) {
        if (!node.is_table()) {
          refuse(node, key, [&] { wrong_kind(node, "a table"); });
        }
        read(*node.as_table(), key + ".");
      } else {
        refuse(node, key, [&] { unknown_key(prefix, name); });
      }
    }
  }

  void warn() const {
    if (renamed_.empty()) return;
    spdlog::warn("{}: old names are still read: {}", file_, fmt::join(renamed_, ", "));
  }

 private:
  bool is_section(const std::string& prefix) const {
    return std::ranges::any_of(settings_.all(), [&](const Setting& setting) {
      return setting.key.starts_with(prefix) || setting.was.starts_with(prefix);
    });
  }

  [[noreturn]] void unknown_key(const std::string& prefix, std::string_view name) const {
    std::vector<std::string> known;
    for (const Setting& setting : settings_.all()) {
      if (!setting.key.starts_with(prefix)) continue;
      known.push_back(setting.key.substr(prefix.size()));
      known.back().resize(std::min(known.back().size(), known.back().find('.')));
    }
    throw_error("unknown key; did you mean '{}'?", nearest(name, known));
  }

  // Runs `action`; what it throws is said of this place.
  template <class F>
  void refuse(const toml::node& node, const std::string& key, F action) const {
    try {
      action();
    } catch (const Error& error) {
      const std::string line = has_lines_ ? fmt::format(":{}", node.source().begin.line) : "";
      throw_error("{}{}: {}: {}", file_, line, key, error.what());
    }
  }

  void read_setting(const Setting& setting, const toml::node& node, const std::string& key) {
    refuse(node, key, [&] {
      if (!seen_.insert(setting.key).second) throw_error("is given as '{}' too", setting.key);
      const Overloaded read{
          [&](const Choice& choice) {
            std::string word;
            read_node(word, node, setting.about);
            const std::string now = choose(choice, word);
            if (now.empty()) return;
            renamed_.push_back(fmt::format("{} = '{}' is '{}' now", key, word, now));
          },
          [&](auto* member) { read_node(*member, node, setting.about); }};
      std::visit(read, setting.value);
    });
  }

  const Settings& settings_;
  const std::string& file_;
  const bool has_lines_;
  std::set<std::string> seen_;
  std::vector<std::string> renamed_;
};

// "a.b=c" as the nested table {a = {b = c}}.
toml::table parse_assignment(std::string_view assignment) {
  const size_t equals = assignment.find('=');
  const auto refuse = [&] {
    throw UsageError(fmt::format("--set {}: expected section.key=value", assignment));
  };
  if (equals == std::string_view::npos) refuse();
  const std::string_view key = assignment.substr(0, equals), value = assignment.substr(equals + 1);
  // With a line break the text could smuggle in further keys, so it is a string.
  if (assignment.find_first_of("\r\n") == std::string_view::npos) {
    try {
      return toml::parse(assignment);
    } catch (const toml::parse_error&) {
    }
  }
  try {
    return toml::parse(fmt::format("{} = {}", key, quote(std::string(value))));
  } catch (const toml::parse_error&) {
    refuse();
  }
}

template <class T>
T parse_number(const std::string& word, std::string_view expected) {
  T out{};
  const auto [end, error] = std::from_chars(word.data(), word.data() + word.size(), out);
  if (error != std::errc() || end != word.data() + word.size()) {
    throw_error("expected {}, got '{}'", expected, word);
  }
  return out;
}

void parse_word(int64_t& out, const std::string& word, const About& about) {
  const auto value = parse_number<int64_t>(word, "an integer");
  check_bounds(about, value);
  out = value;
}

void parse_word(double& out, const std::string& word, const About& about) {
  const auto value = parse_number<double>(word, "a number");
  check_bounds(about, value);
  out = value;
}

void parse_word(bool& out, const std::string& word, const About&) {
  if (word != "true" && word != "false") throw_error("expected true or false, got '{}'", word);
  out = word == "true";
}

void parse_word(std::string& out, const std::string& word, const About&) {
  out = word;
}

// One word of several: it is added.
template <class T>
void parse_word(std::vector<T>& out, const std::string& word, const About& about) {
  T element{};
  parse_word(element, word, about);
  out.push_back(std::move(element));
}

std::string write(bool value) {
  return value ? "true" : "false";
}

std::string write(int64_t value) {
  return std::to_string(value);
}

std::string write(double value) {
  const std::string text = fmt::format("{}", value);
  // "inf", "nan" and what has a point or an exponent are floats already.
  return text.find_first_of(".en") == std::string::npos ? text + ".0" : text;
}

std::string write(const std::string& value) {
  return quote(value);
}

template <class T>
std::string write(const std::vector<T>& value) {
  std::string out;
  for (const T& element : value) out += (out.empty() ? "" : ", ") + write(element);
  return "[" + out + "]";
}

std::string word_of(const Choice& choice) {
  const size_t i = choice.get();
  return i < choice.words.size() ? std::string(choice.words[i]) : "?";
}

// "align" of "align.tokens", and "tokens".
std::pair<std::string, std::string> split_key(const std::string& key) {
  const size_t dot = key.rfind('.');
  if (dot == std::string::npos) return {"", key};
  return {key.substr(0, dot), key.substr(dot + 1)};
}

// The object of a section inside `root`, made where it is not there.
json::object& section_of(json::object& root, const std::string& section) {
  json::object* out = &root;
  std::istringstream names(section);
  for (std::string name; std::getline(names, name, '.');) {
    json::value& inner = (*out)[name];
    if (!inner.is_object()) inner.emplace_object();
    out = &inner.get_object();
  }
  return *out;
}

void insert_json(toml::table& table, std::string_view key, const json::value& value);

toml::table to_table(const json::object& object) {
  toml::table table;
  for (const auto& [key, value] : object) insert_json(table, key, value);
  return table;
}

void insert_json(toml::table& table, std::string_view key, const json::value& value) {
  const auto convert = [](const json::value& v, auto put) {
    if (v.is_bool()) {
      put(v.get_bool());
    } else if (v.is_int64()) {
      put(v.get_int64());
    } else if (v.is_double()) {
      put(v.get_double());
    } else if (v.is_string()) {
      put(std::string(v.get_string()));
    } else {
      throw_error("a JSON value of kind {} is no setting", json::to_string(v.kind()));
    }
  };
  if (value.is_object()) {
    table.insert(key, to_table(value.get_object()));
  } else if (value.is_array()) {
    toml::array array;
    for (const json::value& element : value.get_array()) {
      convert(element, [&](auto v) { array.push_back(v); });
    }
    table.insert(key, std::move(array));
  } else {
    convert(value, [&](auto v) { table.insert(key, v); });
  }
}

void read_table(const Settings& settings, const toml::table& table, const std::string& file,
                bool has_lines, bool warns = true) {
  TableReader reader(settings, file, has_lines);
  reader.read(table);
  if (warns) reader.warn();
}

}  // namespace

void read_toml(const Settings& settings, const std::string& text, const std::string& file) {
  toml::table table;
  try {
    table = toml::parse(text);
  } catch (const toml::parse_error& error) {
    const toml::source_position& at = error.source().begin;
    throw_error("{}:{}:{}: invalid TOML: {}", file, at.line, at.column, error.description());
  }
  read_table(settings, table, file, true);
}

void read_json_settings(const Settings& settings, const json::object& object,
                        const std::string& file) {
  read_table(settings, to_table(object), file, false, /*warns=*/false);
}

void set_setting(const Settings& settings, std::string_view assignment) {
  read_table(settings, parse_assignment(assignment), "--set", false);
}

void read_word(const Setting& setting, const std::string& word) {
  const Overloaded read{[&](const Choice& choice) {
                          const std::string now = choose(choice, word);
                          if (!now.empty()) spdlog::warn("'{}' is '{}' now", word, now);
                        },
                        [&](auto* member) { parse_word(*member, word, setting.about); }};
  std::visit(read, setting.value);
}

std::string value_to_toml(const Setting& setting) {
  return std::visit(Overloaded{[](const Choice& choice) { return quote(word_of(choice)); },
                               [](const auto* member) { return write(*member); }},
                    setting.value);
}

json::object to_json(const Settings& settings) {
  json::object out;
  for (const Setting& setting : settings.all()) {
    const auto [section, name] = split_key(setting.key);
    section_of(out, section)[name] =
        std::visit(Overloaded{[](const Choice& choice) { return json::value(word_of(choice)); },
                              [](const auto* member) { return json::value_from(*member); }},
                   setting.value);
  }
  return out;
}

// What is in no section first, then section by section: TOML has no way back out of one.
std::string to_toml(const Settings& settings) {
  std::vector<std::pair<std::string, std::string>> sections = {{"", ""}};
  for (const Setting& setting : settings.all()) {
    const auto [section, name] = split_key(setting.key);
    auto at = std::ranges::find(sections, section, &std::pair<std::string, std::string>::first);
    if (at == sections.end()) {
      at = sections.insert(at, {section, fmt::format("\n[{}]\n", section)});
    }
    at->second += fmt::format("{} = {}\n", name, value_to_toml(setting));
  }
  std::string out;
  for (const auto& [section, text] : sections) out += text;
  return out;
}

std::string allowed_values(const Setting& setting) {
  if (const auto* choice = std::get_if<Choice>(&setting.value)) {
    return fmt::format("{}", fmt::join(choice->words, " | "));
  }
  const bool is_text = std::holds_alternative<std::string*>(setting.value) ||
                       std::holds_alternative<std::vector<std::string>*>(setting.value);
  if (std::holds_alternative<bool*>(setting.value) || is_text) return "";
  // A bound that nobody will meet says nothing.
  if (setting.about.max < kMaxCount) return format_bounds(setting.about);
  return setting.about.min > 0 ? "at least " + format_bound(setting.about.min) : "";
}

std::string settings_help(const Settings& settings) {
  std::string out;
  for (const Setting& setting : settings.all()) {
    const bool words = std::holds_alternative<Choice>(setting.value);
    out += fmt::format("{}  ({})  {}{}{}\n", setting.key, value_to_toml(setting),
                       words ? allowed_values(setting) + ": " : "", setting.about.help,
                       setting.about.effect == Effect::kNone ? " *" : "");
  }
  return out;
}

std::vector<Difference> differences(const Settings& before, const Settings& now) {
  std::vector<Difference> out;
  for (size_t i = 0; i < now.all().size(); ++i) {
    const Setting& setting = now.all()[i];
    const std::string was = value_to_toml(before.all()[i]), is = value_to_toml(setting);
    if (was != is) out.push_back({setting.key, was, is, setting.about.effect});
  }
  return out;
}

}  // namespace halo
