#include "halo/server/conversation.h"

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

void read_tools(const Fields& fields, Conversation& conversation) {
  fields.boolean("parallel_tool_calls");
  std::string choice = "auto";
  if (const json::value* given = fields.find("tool_choice")) {
    const auto* word = given->if_string();
    choice = word != nullptr ? std::string(*word) : "a named function";
    if (choice != "auto" && choice != "none")
      fields.refuse("tool_choice",
                    fmt::format("'{}' is not supported; expected 'auto' or 'none'", choice),
                    "unsupported_value");
  }
  const json::array* tools = fields.array("tools");
  if (tools == nullptr || tools->empty()) return;
  json::array kept;
  for (size_t i = 0; i < tools->size(); ++i) {
    const Fields tool((*tools)[i], element_path(fields.path("tools"), i));
    if (const std::string type = tool.required_text("type"); type != "function")
      tool.refuse("type", fmt::format("'{}' is unknown; expected 'function'", type));
    if (tool.object("function") == nullptr)
      tool.refuse("function", "is missing", "missing_required_parameter");
    const Fields function(*tool.find("function"), tool.path("function"));
    conversation.tool_names.insert(function.required_text("name"));
    function.text("description");
    function.object("parameters");
    kept.push_back((*tools)[i]);
  }
  if (choice == "none") {
    conversation.tool_names.clear();
  } else {
    conversation.tools = std::move(kept);
  }
}

void describe_tools(Conversation& conversation) {
  std::string text =
      "You can call these functions; each is described by its name, purpose and parameters:\n"
      "<tools>\n";
  for (const json::value& tool : conversation.tools.as_array()) {
    text += to_line(tool.as_object().at("function")) + "\n";
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
