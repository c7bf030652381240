// Conversations with tools, as the APIs bring them and as chat templates take them.
#pragma once

#include <optional>
#include <set>
#include <string>
#include <string_view>

#include "halo/base/json.h"
#include "halo/server/answer_rules.h"
#include "halo/server/fields.h"

namespace halo {

struct Conversation {
  json::array messages;  // role, content as text, reasoning_content, tool_calls, tool_call_id
  json::value tools;     // a list of {"type": "function", "function": {...}}, or null
  std::set<std::string, std::less<>> tool_names;
  ToolRules rules;         // of the same tools
  json::object variables;  // further ones of the template
};

// `messages` of /v1/chat/completions: content that comes in parts is joined, arguments of calls
// become objects, "developer" is "system".
json::array read_messages(const Fields& fields);

// `tools` and `tool_choice` of /v1/chat/completions, into the conversation. "none" leaves the tools
// out.
void read_tools(const Fields& fields, Conversation& conversation);
void leave_tools_out(Conversation& conversation);
// `tool_choice` where it is an object that names a function. None where it is not there or a word,
// which is read into the conversation.
std::optional<Fields> read_named_choice(const Fields& fields, Conversation& conversation);

// The text of a `content`: text, or parts of type `part_types`.
std::string content_text(const json::value& content, const std::string& path,
                         const std::set<std::string_view>& part_types);

// For models whose template has no place for tools: a first message of the system says them, and
// how to call them.
void describe_tools(Conversation& conversation);

}  // namespace halo
