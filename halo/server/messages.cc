#include "halo/server/messages.h"

namespace halo {
namespace {

const std::set<std::string_view> kTextBlocks = {"text"};

// The blocks of an assistant's message: text, thoughts and calls.
json::object read_assistant(const json::array& blocks, const std::string& path) {
  std::string text, thoughts;
  json::array calls;
  for (size_t i = 0; i < blocks.size(); ++i) {
    const Fields block(blocks[i], element_path(path, i));
    const std::string type = block.required_text("type");
    if (type == "text") {
      text += block.required_text("text");
    } else if (type == "thinking") {
      thoughts += block.required_text("thinking");
    } else if (type == "tool_use") {
      const json::object* input = block.object("input");
      calls.push_back(json::object{
          {"id", block.required_text("id")},
          {"type", "function"},
          {"function", json::object{{"name", block.required_text("name")},
                                    {"arguments", input == nullptr ? json::object() : *input}}}});
    } else if (type != "redacted_thinking") {
      block.refuse("type", fmt::format("'{}' is not supported in an assistant's message", type),
                   "unsupported_value");
    }
  }
  json::object out{{"role", "assistant"}, {"content", text}};
  if (!thoughts.empty()) out["reasoning_content"] = thoughts;
  if (!calls.empty()) out["tool_calls"] = std::move(calls);
  return out;
}

// The blocks of a user's message: results of calls are messages of their own.
void read_user(const json::array& blocks, const std::string& path, json::array& messages) {
  std::string text;
  for (size_t i = 0; i < blocks.size(); ++i) {
    const Fields block(blocks[i], element_path(path, i));
    const std::string type = block.required_text("type");
    if (type == "text") {
      text += block.required_text("text");
    } else if (type == "tool_result") {
      const json::value* content = block.find("content");
      block.boolean("is_error");
      messages.push_back(json::object{
          {"role", "tool"},
          {"tool_call_id", block.required_text("tool_use_id")},
          {"content", content == nullptr
                          ? std::string()
                          : content_text(*content, block.path("content"), kTextBlocks)}});
    } else {
      block.refuse("type", fmt::format("'{}' is not supported; this model reads text", type),
                   "unsupported_value");
    }
  }
  if (!text.empty()) messages.push_back(json::object{{"role", "user"}, {"content", text}});
}

json::array read_conversation(const Fields& fields) {
  json::array out;
  if (const json::value* system = fields.find("system"))
    out.push_back(json::object{{"role", "system"},
                               {"content", content_text(*system, "system", kTextBlocks)}});
  const json::array& messages = fields.required_array("messages");
  if (messages.empty()) fields.refuse("messages", "is an empty list");
  for (size_t i = 0; i < messages.size(); ++i) {
    const Fields message(messages[i], element_path("messages", i));
    const std::string role = message.required_text("role");
    if (role != "user" && role != "assistant")
      message.refuse("role", fmt::format("'{}' is unknown; expected user or assistant", role));
    const json::value* content = message.find("content");
    if (content == nullptr) message.refuse("content", "is missing", "missing_required_parameter");
    if (const auto* text = content->if_string()) {
      out.push_back(json::object{{"role", role}, {"content", *text}});
    } else if (role == "user") {
      read_user(*message.array("content"), message.path("content"), out);
    } else {
      out.push_back(read_assistant(*message.array("content"), message.path("content")));
    }
  }
  return out;
}

void read_functions(const Fields& fields, Conversation& conversation) {
  std::string choice = "auto";
  if (fields.object("tool_choice") != nullptr) {
    const Fields inside(*fields.find("tool_choice"), "tool_choice");
    choice = inside.required_text("type");
    conversation.rules.one_call = inside.boolean("disable_parallel_tool_use").value_or(false);
  }
  const json::array* tools = fields.array("tools");
  json::array kept;
  for (size_t i = 0; tools != nullptr && i < tools->size(); ++i) {
    const Fields tool((*tools)[i], element_path("tools", i));
    if (const std::string type = tool.text("type").value_or("custom"); type != "custom")
      tool.refuse("type", fmt::format("'{}' is not supported; expected custom", type),
                  "unsupported_value");
    json::object function{{"name", tool.required_text("name")}};
    if (const auto description = tool.text("description")) function["description"] = *description;
    if (const json::object* schema = tool.object("input_schema")) function["parameters"] = *schema;
    conversation.tool_names.insert(tool.required_text("name"));
    conversation.rules.tools.push_back(
        read_tool(tool.required_text("name"), tool.find("input_schema"),
                  tool.boolean("strict").value_or(false), tool.path("input_schema")));
    kept.push_back(json::object{{"type", "function"}, {"function", std::move(function)}});
  }
  if (!kept.empty()) conversation.tools = std::move(kept);
  if (!fields.has("tool_choice")) return;
  const Fields inside(*fields.find("tool_choice"), "tool_choice");
  if (choice == "tool") {
    choose_tool(inside, "name", inside.required_text("name"), conversation.rules);
  } else if (!read_choice_word(inside, "type", choice == "any" ? "required" : choice,
                               conversation.rules)) {
    leave_tools_out(conversation);
  }
}

json::object usage_of(const Usage& usage) {
  return {{"input_tokens", usage.prompt_tokens - usage.cached_tokens},
          {"cache_creation_input_tokens", 0},
          {"cache_read_input_tokens", usage.cached_tokens},
          {"output_tokens", usage.completion_tokens}};
}

const char* stop_reason(FinishReason finish) {
  switch (finish) {
    case FinishReason::kStop:
      return "end_turn";
    case FinishReason::kStopString:
      return "stop_sequence";
    case FinishReason::kLength:
      return "max_tokens";
    case FinishReason::kToolCalls:
      return "tool_use";
  }
  return "end_turn";
}

json::value stop_string(const AnswerParts& answer) {
  if (answer.finish != FinishReason::kStopString) return nullptr;
  return json::value(answer.stop);
}

// Clients of this API get an object, even of JSON that only they would take.
json::value input_of(const ToolCall& call) {
  try {
    return parse_json(call.arguments, "arguments");
  } catch (const Error&) {
    return json::object{{"arguments", call.arguments}};
  }
}

// A whole block, or one that begins: without what deltas will bring.
json::object block_of(const Piece& piece, bool is_whole) {
  switch (piece.kind) {
    case Piece::Kind::kText:
      return {{"type", "text"}, {"text", is_whole ? piece.text : ""}};
    case Piece::Kind::kReasoning:
      return {{"type", "thinking"}, {"thinking", is_whole ? piece.text : ""}, {"signature", ""}};
    case Piece::Kind::kToolCall:
      break;
  }
  return {{"type", "tool_use"},
          {"id", piece.call.id},
          {"name", piece.call.name},
          {"input", is_whole ? input_of(piece.call) : json::object()}};
}

class AnthropicFormat : public AnswerFormat {
 public:
  explicit AnthropicFormat(std::string model) : model_(std::move(model)) {}

  json::value whole(const std::vector<AnswerParts>& answers, const Usage& usage) override {
    const AnswerParts& answer = answers.front();
    json::array content;
    for (const Piece& piece : answer.pieces) content.push_back(block_of(piece, true));
    json::object out = message(usage);
    out["content"] = std::move(content);
    out["stop_reason"] = stop_reason(answer.finish);
    out["stop_sequence"] = stop_string(answer);
    return out;
  }

  std::string begin(const Usage& usage) override {
    return event("message_start", {{"message", message(usage)}}) + event("ping", {});
  }

  std::string piece(size_t, const Piece& piece, std::span<const ScoredToken>) override {
    std::string out;
    if (!open_ || piece.kind == Piece::Kind::kToolCall || *open_ != piece.kind) {
      out = close();
      open_ = piece.kind;
      out += event("content_block_start",
                   {{"index", index_}, {"content_block", block_of(piece, false)}});
    }
    json::object delta;
    switch (piece.kind) {
      case Piece::Kind::kText:
        delta = {{"type", "text_delta"}, {"text", piece.text}};
        break;
      case Piece::Kind::kReasoning:
        delta = {{"type", "thinking_delta"}, {"thinking", piece.text}};
        break;
      case Piece::Kind::kToolCall:
        delta = {{"type", "input_json_delta"}, {"partial_json", piece.call.arguments}};
        break;
    }
    return out + event("content_block_delta", {{"index", index_}, {"delta", std::move(delta)}});
  }

  std::string end(size_t, const AnswerParts& answer, std::span<const ScoredToken>) override {
    stop_ = {{"stop_reason", stop_reason(answer.finish)}, {"stop_sequence", stop_string(answer)}};
    return close();
  }

  std::string done(const Usage& usage) override {
    return event("message_delta", {{"delta", stop_}, {"usage", usage_of(usage)}}) +
           event("message_stop", {});
  }

  std::string failed(const ApiError& error) override {
    return sse(anthropic_error(error), "error");
  }

 private:
  static std::string event(const std::string& type, json::object members) {
    json::object out{{"type", type}};
    for (auto& [key, value] : members) out[key] = std::move(value);
    return sse(out, type);
  }

  std::string close() {
    if (!open_) return "";
    open_.reset();
    return event("content_block_stop", {{"index", index_++}});
  }

  json::object message(const Usage& usage) const {
    return {{"id", id_},
            {"type", "message"},
            {"role", "assistant"},
            {"model", model_},
            {"content", json::array()},
            {"stop_reason", nullptr},
            {"stop_sequence", nullptr},
            {"usage", usage_of(usage)}};
  }

  const std::string model_, id_ = make_id("msg_");
  std::optional<Piece::Kind> open_;  // the block that has begun and not ended
  int64_t index_ = 0;
  json::object stop_;
};

}  // namespace

ChatRequest read_anthropic(const json::value& body, bool needs_limit) {
  const Fields fields(body);
  ChatRequest out;
  out.generation = read_generation(fields);
  if (out.generation.n != 1) fields.refuse("n", "is not supported", "unsupported_parameter");
  out.generation.max_tokens = fields.integer("max_tokens", 1, kMaxTokens);
  if (needs_limit && !out.generation.max_tokens)
    fields.refuse("max_tokens", "is missing", "missing_required_parameter");
  if (fields.has("stop_sequences")) out.generation.stop = read_stops(fields, "stop_sequences");
  out.conversation.messages = read_conversation(fields);
  if (out.conversation.messages.empty()) fields.refuse("messages", "hold no text");
  read_functions(fields, out.conversation);
  if (fields.object("thinking") != nullptr) {
    const Fields thinking(*fields.find("thinking"), "thinking");
    out.conversation.variables["enable_thinking"] = thinking.required_text("type") != "disabled";
  }
  // An answer begun by the client is gone on with.
  const json::object& last = out.conversation.messages.back().as_object();
  out.continue_final_message = last.at("role") == "assistant" && !last.contains("tool_calls");
  out.add_generation_prompt = !out.continue_final_message;
  out.generation.ignored = fields.unknown();
  return out;
}

std::unique_ptr<AnswerFormat> anthropic_format(const std::string& model) {
  return std::make_unique<AnthropicFormat>(model);
}

json::object anthropic_error(const ApiError& error) {
  json::object out{{"type", "error"}};
  for (const auto& [key, value] : error.to_json()) out[key] = value;
  return out;
}

}  // namespace halo
