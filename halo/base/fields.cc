// The kinds of fields that are not templates, and their messages.
#include "halo/base/fields.h"

#include <algorithm>
#include <numeric>
#include <sstream>

namespace halo {
namespace {

// Levenshtein distance, one row at a time.
size_t edit_distance(std::string_view a, std::string_view b) {
  std::vector<size_t> row(b.size() + 1);
  std::iota(row.begin(), row.end(), size_t{0});
  for (size_t i = 0; i < a.size(); ++i) {
    size_t diagonal = std::exchange(row[0], i + 1);
    for (size_t j = 0; j < b.size(); ++j) {
      const size_t substituted = diagonal + (a[i] != b[j]);
      diagonal = row[j + 1];
      row[j + 1] = std::min({substituted, row[j] + 1, diagonal + 1});
    }
  }
  return row.back();
}

// A basic TOML string; JSON's escapes are TOML's but for DEL.
std::string quote(const std::string& text) {
  std::string out = json::serialize(json::value(text));
  for (size_t at = 0; (at = out.find('\x7f', at)) != std::string::npos; at += 6)
    out.replace(at, 1, "\\u007f");
  return out;
}

}  // namespace

std::string nearest(std::string_view word, const std::vector<std::string>& candidates) {
  const auto best = std::min_element(candidates.begin(), candidates.end(),
                                     [&](const std::string& a, const std::string& b) {
                                       return edit_distance(word, a) < edit_distance(word, b);
                                     });
  return best == candidates.end() ? std::string() : *best;
}

toml::table parse_toml(const std::string& text, const std::string& file) {
  try {
    return toml::parse(text);
  } catch (const toml::parse_error& error) {
    const toml::source_position& at = error.source().begin;
    throw_error("{}:{}:{}: invalid TOML: {}", file, at.line, at.column, error.description());
  }
}

namespace detail {

void field_error(const FieldPlace& place, const toml::node& node, const std::string& what) {
  const std::string line = place.merge ? "" : fmt::format(":{}", node.source().begin.line);
  throw_error("{}{}: {}: {}", place.file, line, place.key, what);
}

void wrong_kind(const FieldPlace& place, const toml::node& node, std::string_view expected) {
  std::ostringstream kind;
  kind << node.type();
  field_error(place, node,
              fmt::format("expected {}, got a value of type {}", expected, kind.str()));
}

void refuse_unknown_keys(const FieldPlace& place, const toml::table& table,
                         const std::vector<std::string>& known) {
  for (const auto& [key, node] : table) {
    if (std::find(known.begin(), known.end(), key.str()) != known.end()) continue;
    const std::string guess = nearest(key.str(), known);
    field_error(
        place.child(key.str()), node,
        guess.empty() ? "unknown key" : fmt::format("unknown key; did you mean '{}'?", guess));
  }
}

toml::table parse_assignment(std::string_view assignment) {
  const size_t equals = assignment.find('=');
  const auto refuse = [&] [[noreturn]] {
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

void read_value(bool& out, const toml::node& node, const FieldPlace& place) {
  const auto* value = node.as_boolean();
  if (value == nullptr) wrong_kind(place, node, "true or false");
  out = value->get();
}

void read_value(int64_t& out, const toml::node& node, const FieldPlace& place) {
  const auto* value = node.as_integer();
  if (value == nullptr) wrong_kind(place, node, "an integer");
  out = value->get();
}

void read_value(double& out, const toml::node& node, const FieldPlace& place) {
  if (!node.is_number()) wrong_kind(place, node, "a number");
  out = *node.value<double>();
}

void read_value(std::string& out, const toml::node& node, const FieldPlace& place) {
  const auto* value = node.as_string();
  if (value == nullptr) wrong_kind(place, node, "a string");
  out = value->get();
}

void read_value(std::map<std::string, double>& out, const toml::node& node,
                const FieldPlace& place) {
  const toml::table* table = node.as_table();
  if (table == nullptr) wrong_kind(place, node, "a table of numbers");
  if (!place.merge) out.clear();
  for (const auto& [key, entry] : *table)
    read_value(out[std::string(key.str())], entry, place.child(key.str()));
}

std::string value_to_toml(bool value) {
  return value ? "true" : "false";
}

std::string value_to_toml(int64_t value) {
  return std::to_string(value);
}

std::string value_to_toml(double value) {
  const std::string text = fmt::format("{}", value);
  // "inf", "nan" and what has a point or an exponent are floats already.
  return text.find_first_of(".en") == std::string::npos ? text + ".0" : text;
}

std::string value_to_toml(const std::string& value) {
  return quote(value);
}

std::string value_to_toml(const std::map<std::string, double>& value) {
  std::string out;
  for (const auto& [key, number] : value)
    out += fmt::format("{}{} = {}", out.empty() ? "" : ", ", quote(key), value_to_toml(number));
  return "{" + out + "}";
}

}  // namespace detail
}  // namespace halo
