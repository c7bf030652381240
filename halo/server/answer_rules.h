// What a request demands of the form of its answer: JSON by a schema, calls of tools.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "halo/grammar/grammar.h"
#include "halo/server/fields.h"
#include "halo/server/tool_calls.h"

namespace halo {

// A function that may be called.
struct CallableTool {
  std::string name;
  json::value arguments;   // a checked schema
  bool is_strict = false;  // its arguments must be so even where it need not be called
};

struct ToolRules {
  enum class Call { kMay, kMust };
  Call call = Call::kMay;
  std::string only;  // the tool that must be called; empty: any
  bool one_call = false;
  std::vector<CallableTool> tools;
};

// The schema in `response_format` of the older APIs and `text.format` of the newer, if it is not
// text: json_object, json_schema.
std::optional<AnswerSchema> read_response_format(const Fields& fields, std::string_view key);

// The schema of a tool's arguments, at `path`; null: none. One that no grammar follows is an
// ApiError where the tool is strict, and any object where it is not.
CallableTool read_tool(std::string name, const json::value* schema, bool is_strict,
                       const std::string& path);

// `tool_choice` as a word, or as the name of a tool, which must be one of the rules'. `word` is
// "auto", "required" or "none"; an ApiError at `field` of `fields` where it is another. False:
// no tool is to be called, nor shown.
bool read_choice_word(const Fields& fields, std::string_view field, std::string_view word,
                      ToolRules& rules);
void choose_tool(const Fields& fields, std::string_view field, const std::string& name,
                 ToolRules& rules);

// What the answer may be; none: any text.
std::optional<TextFormat> answer_rules(const AnswerForm& form, const ToolRules& rules,
                                       const std::optional<AnswerSchema>& schema);

}  // namespace halo
