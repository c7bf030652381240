// Values as text: Python's str() and repr(), and the `tojson` of transformers.
#pragma once

#include <optional>
#include <string>

#include "halo/jinja/value.h"

namespace halo::jinja {

// What `{{ value }}` prints. Functions and iterators, which print as addresses, are refused.
std::string to_text(Budget& budget, const Value& value);
std::string to_repr(Budget& budget, const Value& value);
std::string float_text(double number);  // Python's repr of a float

struct JsonStyle {
  bool ensure_ascii = false;
  bool sort_keys = false;
  std::optional<std::string> indent;  // of one level; none: all on one line
  std::string item_separator = ", ", key_separator = ": ";
};
std::string to_json(Budget& budget, const Value& value, const JsonStyle& style);

}  // namespace halo::jinja
