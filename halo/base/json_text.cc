#include "halo/base/json_text.h"

#include <cmath>

#include "halo/base/check.h"

namespace halo {
namespace {

void append_newline(std::string& out, int depth) {
  if (depth == kInLine) return;
  out += '\n';
  out.append(2 * depth, ' ');
}

// The shortest digits that read back to the same double, so that equal numbers look equal.
void append_double(std::string& out, double number) {
  if (!std::isfinite(number)) {
    out += "null";
    return;
  }
  const std::string text = fmt::format("{}", number);
  out += text;
  if (text.find_first_of(".e") == std::string::npos) out += ".0";
}

}  // namespace

void append_json(std::string& out, const json::value& value, int depth) {
  const int inside = depth == kInLine ? kInLine : depth + 1;
  if (const auto* object = value.if_object()) {
    out += '{';
    for (bool first = true; const auto& [key, member] : *object) {
      if (!first) out += ',';
      first = false;
      append_newline(out, inside);
      out += json::serialize(json::value(key));
      out += depth == kInLine ? ":" : ": ";
      append_json(out, member, inside);
    }
    if (!object->empty()) append_newline(out, depth);
    out += '}';
  } else if (const auto* array = value.if_array()) {
    out += '[';
    for (bool first = true; const auto& element : *array) {
      if (!first) out += ',';
      first = false;
      append_newline(out, inside);
      append_json(out, element, inside);
    }
    if (!array->empty()) append_newline(out, depth);
    out += ']';
  } else if (const auto* number = value.if_double()) {
    append_double(out, *number);
  } else {
    out += json::serialize(value);
  }
}

std::string format_json_line(const json::value& value) {
  std::string out;
  append_json(out, value, kInLine);
  return out;
}

}  // namespace halo
