// Cuts the source of a template into tokens, as Jinja does with trim_blocks and lstrip_blocks on:
// spaces before a block at the start of a line go, and so does the line end behind a block.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "halo/jinja/source.h"

namespace halo::jinja {

struct Token {
  enum class Kind {
    kData,
    kVariableBegin,
    kVariableEnd,
    kBlockBegin,
    kBlockEnd,
    kName,
    kString,
    kInteger,
    kFloat,
    kOperator,
    kEnd
  };
  Kind kind;
  size_t at;         // offset in the source
  std::string text;  // data, name, operator, text with its escapes resolved, digits without '_'
};

// The last token is kEnd.
std::vector<Token> tokenize(const Source& source);

}  // namespace halo::jinja
