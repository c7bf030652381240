// Routes that the model answers.
#include <spdlog/spdlog.h>

#include "halo/base/json_text.h"
#include "halo/base/utf8.h"
#include "halo/server/messages.h"
#include "halo/server/responses.h"
#include "halo/server/service.h"

namespace halo {

// Fields that mean nothing here are told once each: clients send them with every request.
void Service::start(const std::shared_ptr<Exchange>& exchange, AnswerPlan plan) {
  for (const std::string& field : plan.generation.ignored) {
    constexpr size_t kMost = 100;
    const std::lock_guard lock(ignored_mutex_);
    if (ignored_.size() < kMost && ignored_.insert(field).second)
      spdlog::info("{}: the field {} is ignored", exchange->request().path,
                   json::serialize(json::value(replace_invalid_utf8(field.substr(0, 80)))));
  }
  if (plan.grammar && plan.generation.ignore_eos)
    throw bad_field("ignore_eos", "cannot go with an answer that must be of a form");
  Answering::start(answerer_, exchange, std::move(plan));
}

void Service::completions(const std::shared_ptr<Exchange>& exchange) {
  CompletionRequest request = read_completion(body_of(*exchange));
  AnswerPlan plan;
  const std::string name = answered_model(request.generation.model);
  for (size_t i = 0; i < request.prompts.size(); ++i) {
    const std::string param = request.prompts.size() > 1 ? element_path("prompt", i) : "prompt";
    std::string text;
    if (const auto* given = std::get_if<std::string>(&request.prompts[i])) {
      text = *given;
      plan.prompts.push_back(model_.encode(text, request.add_special_tokens, param));
    } else {
      auto& tokens = std::get<std::vector<int64_t>>(request.prompts[i]);
      model_.check_tokens(tokens, param);
      if (request.echo) text = model_.tokenizer().decode(tokens);
      plan.prompts.push_back(std::move(tokens));
    }
    if (request.echo) plan.prompt_texts.push_back(std::move(text));
  }
  plan.format = completion_format(request, name);
  plan.score_prompts = (request.echo && request.generation.top_logprobs >= 0) ||
                       request.generation.prompt_logprobs >= 0;
  plan.continues_text = true;
  plan.prompt_field = "prompt";
  if (request.generation.schema)
    plan.grammar = model_.grammar(json_text(request.generation.schema->schema),
                                  request.generation.schema->field);
  plan.generation = std::move(request.generation);
  start(exchange, std::move(plan));
}

AnswerPlan Service::plan_chat(ChatRequest request, std::unique_ptr<AnswerFormat> format) const {
  AnswerPlan plan;
  const std::string prompt = model_.render(request);
  plan.prompts.push_back(model_.encode(prompt, false, "messages"));
  plan.form = model_.answer_form(request, prompt);
  plan.format = std::move(format);
  const ToolRules& rules = request.conversation.rules;
  const auto& schema = request.generation.schema;
  if (const auto format_rules = answer_rules(plan.form, rules, schema)) {
    if (request.continue_final_message) {
      throw bad_field("continue_final_message",
                      "cannot go with a 'response_format' or tools that decide what an answer is");
    }
    plan.grammar = model_.grammar(*format_rules, schema ? schema->field : "tools");
  }
  plan.generation = std::move(request.generation);
  return plan;
}

void Service::chat_completions(const std::shared_ptr<Exchange>& exchange) {
  ChatRequest request = read_chat(body_of(*exchange));
  auto format = chat_format(request, answered_model(request.generation.model));
  start(exchange, plan_chat(std::move(request), std::move(format)));
}

void Service::responses(const std::shared_ptr<Exchange>& exchange) {
  ResponsesRequest request = read_responses(body_of(*exchange));
  auto format = responses_format(request, answered_model(request.chat.generation.model));
  AnswerPlan plan = plan_chat(std::move(request.chat), std::move(format));
  plan.prompt_field = "input";
  start(exchange, std::move(plan));
}

void Service::messages(const std::shared_ptr<Exchange>& exchange) {
  try {
    ChatRequest request = read_anthropic(body_of(*exchange), true);
    auto format = anthropic_format(answered_model(request.generation.model));
    start(exchange, plan_chat(std::move(request), std::move(format)));
  } catch (const ApiError& error) {
    HttpAnswer answer = error.answer();
    answer.body = format_json_line(anthropic_error(error));
    exchange->answer(std::move(answer));
  }
}

void Service::count_tokens(const std::shared_ptr<Exchange>& exchange) {
  const std::string prompt = model_.render(read_anthropic(body_of(*exchange), false));
  const auto count = model_.encode(prompt, false, "messages").size();
  exchange->answer(json_answer(json::object{{"input_tokens", count}}));
}

}  // namespace halo
