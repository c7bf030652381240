#include "halo/server/conversation.h"

#include "halo/base/json_text.h"

namespace halo {
namespace {

const std::set<std::string_view> kTextParts = {"text", "input_text", "output_text"};

// Templates write arguments as objects; clients send them as JSON text.
json::array read_calls(const json::array& calls, const std::string& path) {
  json::array out;
  for (size_t i = 0; i < calls.size(); ++i) {
    const Fields call(calls[i], element_path(path, i));
    if (call.object("function") == nullptr)
      call.refuse("function", "is missing", "missing_required_parameter");
    const Fields function(*call.find("function"), call.path("function"));
    json::object made{{"name", function.required_text("name")}};
    const json::value* arguments = function.find("arguments");
    if (arguments == nullptr) {
      made["arguments"] = json::object();
    } else if (const auto* text = arguments->if_string()) {
      try {
        made["arguments"] =
            text->empty() ? json::value(json::object()) : parse_json(*text, "arguments");
      } catch (const Error&) {
        made["arguments"] = *text;
      }
    } else {
      made["arguments"] = *arguments;
    }
    out.push_back(json::object{
        {"id", call.text("id").value_or("")}, {"type", "function"}, {"function", std::move(made)}});
  }
  return out;
}

json::object read_message(const json::value& value, const std::string& path) {
  const Fields message(value, path);
  std::string role = message.required_text("role");
  if (role == "developer") role = "system";
  if (role != "system" && role != "user" && role != "assistant" && role != "tool")
    message.refuse("role", fmt::format("'{}' is unknown; expected system, developer, user, "
                                       "assistant or tool",
                                       role));
  json::object out{{"role", role}};
  const json::array* calls = message.array("tool_calls");
  const json::value* content = message.find("content");
  if (content == nullptr && calls == nullptr && role != "assistant")
    message.refuse("content", "is missing", "missing_required_parameter");
  out["content"] =
      content == nullptr ? "" : content_text(*content, message.path("content"), kTextParts);
  for (const char* key : {"reasoning_content", "name", "tool_call_id"}) {
    if (const auto text = message.text(key)) out[key] = *text;
  }
  if (calls != nullptr && !calls->empty())
    out["tool_calls"] = read_calls(*calls, message.path("tool_calls"));
  return out;
}

}  // namespace

std::string content_text(const json::value& content, const std::string& path,
                         const std::set<std::string_view>& part_types) {
  if (const auto* text = content.if_string()) return std::string(*text);
  const auto* parts = content.if_array();
  if (parts == nullptr)
    throw bad_field(path, fmt::format("expected text or a list of parts, got {}", kind_of(content)),
                    "invalid_type");
  std::string out;
  for (size_t i = 0; i < parts->size(); ++i) {
    if (const auto* text = (*parts)[i].if_string()) {
      out += *text;
      continue;
    }
    const Fields part((*parts)[i], element_path(path, i));
    const std::string type = part.required_text("type");
    if (!part_types.contains(type))
      part.refuse("type", fmt::format("'{}' is not supported; this model reads text", type),
                  "unsupported_value");
    out += part.required_text("text");
  }
  return out;
}

json::array read_messages(const Fields& fields) {
  const json::array& messages = fields.required_array("messages");
  if (messages.empty()) fields.refuse("messages", "is an empty list");
  json::array out;
  for (size_t i = 0; i < messages.size(); ++i) {
    out.push_back(read_message(messages[i], element_path(fields.path("messages"), i)));
  }
  return out;
}

void leave_tools_out(Conversation& conversation) {
  conversation.tools = nullptr;
  conversation.tool_names.clear();
  conversation.rules = {};
}

std::optional<Fields> read_named_choice(const Fields& fields, Conversation& conversation) {
  const json::value* choice = fields.find("tool_choice");
  if (choice == nullptr) return std::nullopt;
  if (const auto* word = choice->if_string()) {
    if (!read_choice_word(fields, "tool_choice", *word, conversation.rules))
      leave_tools_out(conversation);
    return std::nullopt;
  }
  fields.object("tool_choice");
  Fields inside(*choice, fields.path("tool_choice"));
  if (const std::string type = inside.required_text("type"); type != "function")
    inside.refuse("type", fmt::format("'{}' is not supported; expected 'function'", type),
                  "unsupported_value");
  return inside;
}

namespace {

void read_tool_choice(const Fields& fields, Conversation& conversation) {
  const std::optional<Fields> named = read_named_choice(fields, conversation);
  if (!named) return;
  if (named->object("function") == nullptr)
    named->refuse("function", "is missing", "missing_required_parameter");
  const Fields function(*named->find("function"), named->path("function"));
  choose_tool(function, "name", function.required_text("name"), conversation.rules);
}

}  // namespace

void read_tools(const Fields& fields, Conversation& conversation) {
  conversation.rules.one_call = !fields.boolean("parallel_tool_calls").value_or(true);
  const json::array* tools = fields.array("tools");
  json::array kept;
  for (size_t i = 0; tools != nullptr && i < tools->size(); ++i) {
    const Fields tool((*tools)[i], element_path(fields.path("tools"), i));
    if (const std::string type = tool.required_text("type"); type != "function")
      tool.refuse("type", fmt::format("'{}' is unknown; expected 'function'", type));
    if (tool.object("function") == nullptr)
      tool.refuse("function", "is missing", "missing_required_parameter");
    const Fields function(*tool.find("function"), tool.path("function"));
    const std::string name = function.required_text("name");
    conversation.tool_names.insert(name);
    function.text("description");
    function.object("parameters");
    conversation.rules.tools.push_back(read_tool(name, function.find("parameters"),
                                                 function.boolean("strict").value_or(false),
                                                 function.path("parameters")));
    kept.push_back((*tools)[i]);
  }
  if (!kept.empty()) conversation.tools = std::move(kept);
  read_tool_choice(fields, conversation);
}

void describe_tools(Conversation& conversation) {
  std::string text =
      "You can call these functions; each is described by its name, purpose and parameters:\n"
      "<tools>\n";
  for (const json::value& tool : conversation.tools.as_array()) {
    text += format_json_line(tool.as_object().at("function")) + "\n";
  }
  text +=
      "</tools>\nWhere they help, answer only with a list of calls in this form:\n"
      "<tool_call>[{\"name\": \"NAME\", \"arguments\": {\"PARAMETER\": VALUE}}]</tool_call>\n"
      "Otherwise answer as usual.";
  json::array& messages = conversation.messages;
  if (messages.front().as_object().at("role") == "system") {
    json::value& content = messages.front().as_object()["content"];
    content = text + "\n\n" + std::string(content.as_string());
  } else {
    messages.insert(messages.begin(), json::object{{"role", "system"}, {"content", text}});
  }
  conversation.tools = nullptr;
}

}  // namespace halo
