#include "halo/server/responses.h"

namespace halo {
namespace {

const std::set<std::string_view> kParts = {"text", "input_text", "output_text"};

json::object& last_assistant(json::array& messages) {
  const bool is_there = !messages.empty() && messages.back().as_object().at("role") == "assistant";
  if (!is_there) messages.push_back(json::object{{"role", "assistant"}, {"content", ""}});
  return messages.back().as_object();
}

json::value parsed_or_text(const std::string& text) {
  try {
    return parse_json(text, "arguments");
  } catch (const Error&) {
    return json::value(text);
  }
}

void read_call(const Fields& item, json::array& messages) {
  json::object& message = last_assistant(messages);
  json::value& calls = message["tool_calls"];
  if (calls.is_null()) calls = json::array();
  calls.as_array().push_back(json::object{
      {"id", item.required_text("call_id")},
      {"type", "function"},
      {"function", json::object{{"name", item.required_text("name")},
                                {"arguments", parsed_or_text(item.required_text("arguments"))}}}});
}

void read_output(const Fields& item, json::array& messages) {
  const json::value* output = item.find("output");
  if (output == nullptr) item.refuse("output", "is missing", "missing_required_parameter");
  messages.push_back(json::object{{"role", "tool"},
                                  {"tool_call_id", item.required_text("call_id")},
                                  {"content", content_text(*output, item.path("output"), kParts)}});
}

void read_reasoning(const Fields& item, json::array& messages) {
  std::string thoughts;
  const std::set<std::string_view> types = {"reasoning_text", "summary_text"};
  for (const char* key : {"content", "summary"}) {
    const json::value* parts = item.find(key);
    if (parts != nullptr && thoughts.empty())
      thoughts = content_text(*parts, item.path(key), types);
  }
  if (thoughts.empty()) return;
  json::object message{{"role", "assistant"}, {"content", ""}};
  message["reasoning_content"] = thoughts;
  messages.push_back(std::move(message));
}

void read_message(const Fields& item, json::array& messages) {
  std::string role = item.required_text("role");
  if (role == "developer") role = "system";
  if (role != "system" && role != "user" && role != "assistant")
    item.refuse(
        "role",
        fmt::format("'{}' is unknown; expected system, developer, user or assistant", role));
  const json::value* content = item.find("content");
  if (content == nullptr) item.refuse("content", "is missing", "missing_required_parameter");
  const std::string text = content_text(*content, item.path("content"), kParts);
  // Behind its thoughts it is the same message.
  const bool follows = role == "assistant" && !messages.empty() &&
                       messages.back().as_object().contains("reasoning_content") &&
                       messages.back().as_object().at("content") == "";
  if (follows) {
    messages.back().as_object()["content"] = text;
  } else {
    messages.push_back(json::object{{"role", role}, {"content", text}});
  }
}

json::array read_input(const Fields& fields) {
  json::array messages;
  if (const auto instructions = fields.text("instructions"))
    messages.push_back(json::object{{"role", "system"}, {"content", *instructions}});
  const json::value* input = fields.find("input");
  if (input == nullptr) fields.refuse("input", "is missing", "missing_required_parameter");
  if (const auto* text = input->if_string()) {
    messages.push_back(json::object{{"role", "user"}, {"content", *text}});
    return messages;
  }
  const json::array& items = *fields.array("input");
  if (items.empty()) fields.refuse("input", "is an empty list");
  for (size_t i = 0; i < items.size(); ++i) {
    const Fields item(items[i], element_path("input", i));
    const std::string type = item.text("type").value_or("message");
    if (type == "message") {
      read_message(item, messages);
    } else if (type == "function_call") {
      read_call(item, messages);
    } else if (type == "function_call_output") {
      read_output(item, messages);
    } else if (type == "reasoning") {
      read_reasoning(item, messages);
    } else {
      item.refuse("type", fmt::format("'{}' is unknown; expected message, function_call, "
                                      "function_call_output or reasoning",
                                      type));
    }
  }
  if (messages.empty()) fields.refuse("input", "holds no text");
  return messages;
}

// Chat templates want a function's description below "function".
void read_functions(const Fields& fields, ChatRequest& chat, json::object& said) {
  const json::array* tools = fields.array("tools");
  Conversation& conversation = chat.conversation;
  conversation.rules.one_call = !fields.boolean("parallel_tool_calls").value_or(true);
  said["tools"] = json::array();
  json::array kept;
  for (size_t i = 0; tools != nullptr && i < tools->size(); ++i) {
    const Fields tool((*tools)[i], element_path("tools", i));
    if (const std::string type = tool.required_text("type"); type != "function") {
      chat.generation.ignored.push_back("tools: " + type);
      continue;
    }
    json::object function{{"name", tool.required_text("name")}};
    for (const char* key : {"description", "parameters"}) {
      if (const json::value* value = tool.find(key)) function[key] = *value;
    }
    conversation.tool_names.insert(tool.required_text("name"));
    tool.object("parameters");
    conversation.rules.tools.push_back(
        read_tool(tool.required_text("name"), tool.find("parameters"),
                  tool.boolean("strict").value_or(false), tool.path("parameters")));
    kept.push_back(json::object{{"type", "function"}, {"function", std::move(function)}});
    said["tools"].as_array().push_back((*tools)[i]);
  }
  if (!kept.empty()) conversation.tools = std::move(kept);
  const json::value* choice = fields.find("tool_choice");
  said["tool_choice"] = choice == nullptr ? json::value("auto") : *choice;
  if (const std::optional<Fields> named = read_named_choice(fields, conversation)) {
    choose_tool(*named, "name", named->required_text("name"), conversation.rules);
  }
}

void refuse_memory(const Fields& fields) {
  for (const char* key : {"previous_response_id", "conversation", "prompt"}) {
    if (fields.has(key))
      fields.refuse(key, "needs a server that remembers; send the whole conversation as 'input'",
                    "unsupported_parameter");
  }
  if (fields.boolean("background").value_or(false))
    fields.refuse("background", "is not supported", "unsupported_parameter");
}

void read_text_format(const Fields& fields, ChatRequest& chat, json::object& said) {
  json::value format(json::object{{"type", "text"}});
  if (fields.object("text") != nullptr) {
    const Fields text(*fields.find("text"), "text");
    if (text.has("format")) format = *text.find("format");
    if (auto schema = read_response_format(text, "format")) chat.generation.schema = schema;
  }
  said["text"] = json::object{{"format", std::move(format)}};
}

json::object usage_of(const Usage& usage) {
  return {{"input_tokens", usage.prompt_tokens},
          {"input_tokens_details", json::object{{"cached_tokens", usage.cached_tokens}}},
          {"output_tokens", usage.completion_tokens},
          {"output_tokens_details", json::object{{"reasoning_tokens", 0}}},
          {"total_tokens", usage.prompt_tokens + usage.completion_tokens}};
}

json::object text_part(const std::string& text) {
  return {{"type", "output_text"},
          {"text", text},
          {"annotations", json::array()},
          {"logprobs", json::array()}};
}

json::object summary_part(const std::string& text) {
  return {{"type", "summary_text"}, {"text", text}};
}

// One entry of `output` as it grows.
struct Item {
  Piece piece;  // with all its text
  std::string id;
  size_t index = 0;

  static Item of(const Piece& piece, size_t index) {
    const char* prefix = piece.kind == Piece::Kind::kText        ? "msg_"
                         : piece.kind == Piece::Kind::kReasoning ? "rs_"
                                                                 : "fc_";
    return {piece, make_id(prefix), index};
  }

  json::object to_json(bool is_done, bool at_limit = false) const {
    const char* status = !is_done ? "in_progress" : at_limit ? "incomplete" : "completed";
    switch (piece.kind) {
      case Piece::Kind::kText:
        return {{"id", id},
                {"type", "message"},
                {"status", status},
                {"role", "assistant"},
                {"content", is_done ? json::array{text_part(piece.text)} : json::array()}};
      case Piece::Kind::kReasoning:
        return {{"id", id},
                {"type", "reasoning"},
                {"status", status},
                {"summary", is_done ? json::array{summary_part(piece.text)} : json::array()}};
      case Piece::Kind::kToolCall:
        return {{"id", id},
                {"type", "function_call"},
                {"status", status},
                {"call_id", piece.call.id},
                {"name", piece.call.name},
                {"arguments", is_done ? piece.call.arguments : ""}};
    }
    return {};
  }
};

class ResponsesFormat : public AnswerFormat {
 public:
  ResponsesFormat(const ResponsesRequest& request, std::string model)
      : said_(request.said), model_(std::move(model)) {}

  json::value whole(const std::vector<AnswerParts>& answers, const Usage& usage) override {
    const AnswerParts& answer = answers.front();
    for (const Piece& piece : answer.pieces) items_.push_back(Item::of(piece, items_.size()));
    if (items_.empty()) items_.push_back(Item::of({}, 0));
    finish_ = answer.finish;
    return response(final_status(), &usage);
  }

  std::string begin(const Usage&) override {
    std::string out = event("response.created", {{"response", response("in_progress")}});
    out += event("response.in_progress", {{"response", response("in_progress")}});
    return out;
  }

  std::string piece(size_t, const Piece& piece, std::span<const ScoredToken>) override {
    std::string out;
    const bool joins =
        is_open_ && piece.kind != Piece::Kind::kToolCall && items_.back().piece.kind == piece.kind;
    if (!joins) {
      out = close();
      out += open(piece);
    }
    Item& item = items_.back();
    if (joins) item.piece.text += piece.text;
    switch (piece.kind) {
      case Piece::Kind::kText:
        out +=
            item_event("response.output_text.delta",
                       {{"content_index", 0}, {"delta", piece.text}, {"logprobs", json::array()}});
        break;
      case Piece::Kind::kReasoning:
        out += item_event("response.reasoning_summary_text.delta",
                          {{"summary_index", 0}, {"delta", piece.text}});
        break;
      case Piece::Kind::kToolCall:
        out +=
            item_event("response.function_call_arguments.delta", {{"delta", piece.call.arguments}});
        break;
    }
    return out;
  }

  std::string end(size_t, const AnswerParts& answer, std::span<const ScoredToken>) override {
    finish_ = answer.finish;
    std::string out;
    if (items_.empty()) out = open({});
    out += close();
    return out;
  }

  std::string done(const Usage& usage) override {
    const std::string status = final_status();
    return event("response." + status, {{"response", response(status, &usage)}});
  }

  std::string failed(const ApiError& error) override {
    json::object whole = response("failed");
    whole["error"] = json::object{{"code", "server_error"}, {"message", error.what()}};
    return event("response.failed", {{"response", std::move(whole)}});
  }

 private:
  std::string final_status() const {
    return finish_ == FinishReason::kLength ? "incomplete" : "completed";
  }

  std::string event(const std::string& type, json::object members) {
    json::object out{{"type", type}, {"sequence_number", next_number_++}};
    for (auto& [key, value] : members) out[key] = std::move(value);
    return sse(out, type);
  }

  // About the last item.
  std::string item_event(const std::string& type, json::object members) {
    json::object out{{"item_id", items_.back().id}, {"output_index", items_.back().index}};
    for (auto& [key, value] : members) out[key] = std::move(value);
    return event(type, std::move(out));
  }

  std::string open(const Piece& piece) {
    items_.push_back(Item::of(piece, items_.size()));
    is_open_ = true;
    const Item& item = items_.back();
    std::string out = event("response.output_item.added",
                            {{"output_index", item.index}, {"item", item.to_json(false)}});
    if (piece.kind == Piece::Kind::kText)
      out += item_event("response.content_part.added",
                        {{"content_index", 0}, {"part", text_part("")}});
    if (piece.kind == Piece::Kind::kReasoning)
      out += item_event("response.reasoning_summary_part.added",
                        {{"summary_index", 0}, {"part", summary_part("")}});
    return out;
  }

  std::string close() {
    if (!is_open_) return "";
    is_open_ = false;
    const Item& item = items_.back();
    const Piece& piece = item.piece;
    std::string out;
    switch (piece.kind) {
      case Piece::Kind::kText:
        out = item_event("response.output_text.done",
                         {{"content_index", 0}, {"text", piece.text}, {"logprobs", json::array()}});
        out += item_event("response.content_part.done",
                          {{"content_index", 0}, {"part", text_part(piece.text)}});
        break;
      case Piece::Kind::kReasoning:
        out = item_event("response.reasoning_summary_text.done",
                         {{"summary_index", 0}, {"text", piece.text}});
        out += item_event("response.reasoning_summary_part.done",
                          {{"summary_index", 0}, {"part", summary_part(piece.text)}});
        break;
      case Piece::Kind::kToolCall:
        out = item_event("response.function_call_arguments.done",
                         {{"name", piece.call.name}, {"arguments", piece.call.arguments}});
        break;
    }
    out += event("response.output_item.done",
                 {{"output_index", item.index}, {"item", item.to_json(true, at_limit())}});
    return out;
  }

  bool at_limit() const { return finish_ == FinishReason::kLength; }

  json::object response(const std::string& status, const Usage* usage = nullptr) const {
    json::object out{{"id", id_},        {"object", "response"}, {"created_at", created_},
                     {"status", status}, {"background", false},  {"error", nullptr}};
    out["incomplete_details"] = status == "incomplete"
                                    ? json::value(json::object{{"reason", "max_output_tokens"}})
                                    : json::value();
    out["model"] = model_;
    for (const auto& [key, value] : said_) out[key] = value;
    json::array output;
    for (const Item& item : items_) {
      const bool is_last = &item == &items_.back();
      output.push_back(item.to_json(true, is_last && at_limit()));
    }
    out["output"] = std::move(output);
    out["previous_response_id"] = nullptr;
    out["store"] = false;
    out["truncation"] = "disabled";
    out["usage"] = usage == nullptr ? json::value() : json::value(usage_of(*usage));
    if (usage != nullptr) out["timings"] = timings_json(*usage);
    return out;
  }

  const json::object said_;
  const std::string model_, id_ = make_id("resp_");
  const int64_t created_ = unix_seconds();
  int64_t next_number_ = 0;
  std::vector<Item> items_;
  bool is_open_ = false;  // the last one
  FinishReason finish_ = FinishReason::kStop;
};

}  // namespace

ResponsesRequest read_responses(const json::value& body) {
  const Fields fields(body);
  ResponsesRequest out;
  ChatRequest& chat = out.chat;
  refuse_memory(fields);
  chat.generation = read_generation(fields);
  if (chat.generation.n != 1) fields.refuse("n", "is not supported", "unsupported_parameter");
  chat.generation.max_tokens = fields.integer("max_output_tokens", 1, kMaxTokens);
  chat.conversation.messages = read_input(fields);
  read_functions(fields, chat, out.said);
  if (fields.object("reasoning") != nullptr) {
    const Fields reasoning(*fields.find("reasoning"), "reasoning");
    if (const auto effort = reasoning.text("effort"))
      chat.conversation.variables["reasoning_effort"] = *effort;
  }
  if (const json::object* variables = fields.object("chat_template_kwargs")) {
    for (const auto& [key, value] : *variables) chat.conversation.variables[key] = value;
  }
  for (const char* key : {"instructions", "max_output_tokens", "reasoning"}) {
    const json::value* value = fields.find(key);
    out.said[key] = value == nullptr ? json::value() : *value;
  }
  out.said["metadata"] = fields.has("metadata") ? *fields.find("metadata") : json::object();
  out.said["parallel_tool_calls"] = fields.boolean("parallel_tool_calls").value_or(true);
  out.said["temperature"] = chat.generation.sample.temperature;
  out.said["top_p"] = chat.generation.sample.top_p;
  read_text_format(fields, chat, out.said);
  for (const char* heeded_by_nobody : {"include", "truncation", "prompt_cache_key"})
    fields.find(heeded_by_nobody);
  for (const std::string& field : fields.unknown()) chat.generation.ignored.push_back(field);
  return out;
}

std::unique_ptr<AnswerFormat> responses_format(const ResponsesRequest& request,
                                               const std::string& model) {
  return std::make_unique<ResponsesFormat>(request, model);
}

}  // namespace halo
