// What a text may be, put together of parts.
#pragma once

#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "halo/base/json.h"

namespace halo {

// XGrammar's structural tags: a tree of objects.
struct TextFormat {
  json::object tree;
};

TextFormat literal(std::string_view text);
TextFormat matching(std::string_view pattern);
// A JSON text that is valid by a schema which checked_schema() has made.
TextFormat json_text(json::value schema);
// All of them, one behind the other.
TextFormat sequence(std::vector<TextFormat> parts);
TextFormat one_of(std::vector<TextFormat> choices);
// `least` times or more, 0 or 1.
TextFormat repeated(TextFormat part, int least);
// Any text in which none of `without` stands.
TextFormat free_text(const std::vector<std::string>& without);
// Any text in which behind each `mark` comes what belongs to it.
TextFormat free_text_with(std::vector<std::pair<std::string, TextFormat>> marks);

}  // namespace halo
