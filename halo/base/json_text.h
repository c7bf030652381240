// Text of JSON values, of which format_json() (json.h) is the form that files have.
#pragma once

#include <string>

#include "halo/base/json.h"

namespace halo {

// On one line, without spaces: what is sent. Numbers and what JSON lacks as in format_json().
std::string format_json_line(const json::value& value);

// Appends it: every member and element on a line of its own, `depth` deep in others, or for kInLine
// all on one.
inline constexpr int kInLine = -1;
void append_json(std::string& out, const json::value& value, int depth);

}  // namespace halo
