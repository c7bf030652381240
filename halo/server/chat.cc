#include "halo/server/chat.h"

#include <map>

#include "halo/base/utf8.h"

namespace halo {
namespace {

json::object token_json(const TokenScore& score) {
  json::array bytes;
  for (const char byte : score.bytes) bytes.emplace_back(static_cast<uint8_t>(byte));
  return {{"token", replace_invalid_utf8(score.bytes)},
          {"logprob", score.logprob},
          {"bytes", std::move(bytes)}};
}

json::value logprobs_json(const Generation& generation, std::span<const ScoredToken> tokens) {
  if (generation.top_logprobs < 0) return nullptr;
  json::array content;
  for (const ScoredToken& token : tokens) {
    json::object one = token_json(token);
    json::array top;
    for (const TokenScore& score : token.top) top.push_back(token_json(score));
    one["top_logprobs"] = std::move(top);
    content.push_back(std::move(one));
  }
  return json::object{{"content", std::move(content)}, {"refusal", nullptr}};
}

json::object call_json(const ToolCall& call) {
  return {{"id", call.id},
          {"type", "function"},
          {"function", json::object{{"name", call.name}, {"arguments", call.arguments}}}};
}

class ChatFormat : public AnswerFormat {
 public:
  ChatFormat(const Generation& generation, std::string model)
      : generation_(generation), model_(std::move(model)) {}

  json::value whole(const std::vector<AnswerParts>& choices, const Usage& usage) override {
    json::array list;
    for (size_t i = 0; i < choices.size(); ++i) {
      const AnswerParts& choice = choices[i];
      const std::string text = choice.text(Piece::Kind::kText);
      const std::string reasoning = choice.text(Piece::Kind::kReasoning);
      json::array calls;
      for (const ToolCall& call : choice.calls()) calls.push_back(call_json(call));
      json::object message{{"role", "assistant"}};
      message["content"] = text.empty() && !calls.empty() ? json::value() : json::value(text);
      message["refusal"] = nullptr;
      if (!reasoning.empty()) message["reasoning_content"] = reasoning;
      if (!calls.empty()) message["tool_calls"] = std::move(calls);
      list.push_back(json::object{{"index", i},
                                  {"message", std::move(message)},
                                  {"logprobs", logprobs_json(generation_, choice.tokens)},
                                  {"finish_reason", finish_word(choice.finish)}});
    }
    json::object out = head("chat.completion");
    out["choices"] = std::move(list);
    out["usage"] = usage_json(usage);
    out["timings"] = timings_json(usage);
    return out;
  }

  std::string begin(const Usage&) override {
    std::string out;
    for (int64_t i = 0; i < generation_.n; ++i) {
      out += event(static_cast<size_t>(i), {{"role", "assistant"}, {"content", ""}}, nullptr);
    }
    return out;
  }

  std::string progress(int64_t done, int64_t of) override {
    if (!generation_.return_progress) return "";
    json::object out = head("chat.completion.chunk");
    out["choices"] = json::array();
    out["prompt_progress"] = progress_json(done, of);
    return sse(out);
  }

  std::string piece(size_t choice, const Piece& piece,
                    std::span<const ScoredToken> tokens) override {
    if (piece.kind != Piece::Kind::kToolCall) {
      const char* key = piece.kind == Piece::Kind::kReasoning ? "reasoning_content" : "content";
      return event(choice, {{key, piece.text}}, nullptr, tokens);
    }
    const int64_t index = num_calls_[choice]++;
    json::object call = call_json(piece.call);
    call["function"].as_object()["arguments"] = "";
    json::object first{{"index", index}};
    for (const auto& [key, value] : call) first[key] = value;
    const json::object second{{"index", index},
                              {"function", json::object{{"arguments", piece.call.arguments}}}};
    return event(choice, {{"tool_calls", json::array{std::move(first)}}}, nullptr, tokens) +
           event(choice, {{"tool_calls", json::array{second}}}, nullptr);
  }

  std::string end(size_t choice, const AnswerParts& answer,
                  std::span<const ScoredToken> tokens) override {
    return event(choice, {}, finish_word(answer.finish), tokens);
  }

  std::string done(const Usage& usage) override {
    return stream_end(generation_, head("chat.completion.chunk"), usage);
  }

 private:
  json::object head(const char* kind) const {
    return {{"id", id_},
            {"object", kind},
            {"created", created_},
            {"model", model_},
            {"system_fingerprint", "halo"}};
  }

  std::string event(size_t choice, json::object delta, const json::value& finish,
                    std::span<const ScoredToken> tokens = {}) const {
    json::object one{{"index", choice}, {"delta", std::move(delta)}};
    one["logprobs"] = tokens.empty() ? json::value() : logprobs_json(generation_, tokens);
    one["finish_reason"] = finish;
    json::object out = head("chat.completion.chunk");
    out["choices"] = json::array{std::move(one)};
    return sse(out);
  }

  const Generation generation_;
  const std::string model_, id_ = make_id("chatcmpl-");
  const int64_t created_ = unix_seconds();
  std::map<size_t, int64_t> num_calls_;  // of each choice so far
};

}  // namespace

ChatRequest read_chat(const json::value& body) {
  const Fields fields(body);
  ChatRequest out;
  out.generation = read_generation(fields);
  Generation& generation = out.generation;
  const auto old = fields.integer("max_tokens", 1, kMaxTokens);
  generation.max_tokens = fields.integer("max_completion_tokens", 1, kMaxTokens);
  if (!generation.max_tokens) generation.max_tokens = old;
  const auto top = fields.integer("top_logprobs", 0, kMaxLogprobs);
  if (fields.boolean("logprobs").value_or(false)) {
    generation.top_logprobs = top.value_or(0);
  } else if (top.value_or(0) > 0) {
    fields.refuse("top_logprobs", "needs 'logprobs': true");
  }
  Conversation& conversation = out.conversation;
  conversation.messages = read_messages(fields);
  read_tools(fields, conversation);
  if (const json::object* variables = fields.object("chat_template_kwargs"))
    conversation.variables = *variables;
  if (const auto effort = fields.text("reasoning_effort");
      effort && !conversation.variables.contains("reasoning_effort")) {
    conversation.variables["reasoning_effort"] = *effort;
  }
  out.continue_final_message = fields.boolean("continue_final_message").value_or(false);
  out.add_generation_prompt =
      fields.boolean("add_generation_prompt").value_or(!out.continue_final_message);
  if (out.continue_final_message && out.add_generation_prompt)
    fields.refuse("continue_final_message", "cannot go with 'add_generation_prompt'");
  generation.ignored = fields.unknown();
  return out;
}

std::unique_ptr<AnswerFormat> chat_format(const ChatRequest& request, const std::string& model) {
  return std::make_unique<ChatFormat>(request.generation, model);
}

}  // namespace halo
