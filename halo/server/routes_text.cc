// Texts, tokens and templates, without the model.
#include "halo/base/utf8.h"
#include "halo/server/service.h"

namespace halo {
namespace {

json::array token_array(const std::vector<int64_t>& tokens) {
  json::array out;
  out.reserve(tokens.size());
  for (const int64_t id : tokens) out.emplace_back(id);
  return out;
}

}  // namespace

void Service::tokenize(const std::shared_ptr<Exchange>& exchange) {
  const json::value body = body_of(*exchange);
  const Fields fields(body);
  std::string text;
  bool add_special = fields.boolean("add_special_tokens").value_or(true);
  if (fields.has("messages")) {
    text = model_.render(read_chat(body));
    add_special = fields.boolean("add_special_tokens").value_or(false);
  } else {
    const char* key = fields.has("content") ? "content" : "prompt";  // llama-server's, vLLM's
    text = fields.required_text(key);
  }
  const std::vector<int64_t> tokens = model_.encode(text, add_special, "prompt");
  json::object out{{"tokens", token_array(tokens)},
                   {"count", tokens.size()},
                   {"max_model_len", scheduler_.context()}};
  if (fields.boolean("return_token_strs").value_or(false)) {
    json::array names;
    for (const int64_t id : tokens)
      names.emplace_back(token_name(model_.tokenizer().token_bytes(id)));
    out["token_strs"] = std::move(names);
  }
  exchange->answer(json_answer(out));
}

void Service::detokenize(const std::shared_ptr<Exchange>& exchange) {
  const json::value body = body_of(*exchange);
  const Fields fields(body);
  const json::array& list = fields.required_array("tokens");
  std::vector<int64_t> tokens;
  tokens.reserve(list.size());
  for (size_t i = 0; i < list.size(); ++i) {
    if (!list[i].is_int64())
      throw bad_field(element_path("tokens", i),
                      fmt::format("expected a token's number, got {}", kind_of(list[i])),
                      "invalid_type");
    tokens.push_back(list[i].get_int64());
  }
  model_.check_tokens(tokens, "tokens");
  const std::string text = model_.tokenizer().decode(tokens);
  exchange->answer(json_answer(json::object{{"prompt", text}, {"content", text}}));
}

void Service::tokenizer_info(const std::shared_ptr<Exchange>& exchange) {
  json::object out = model_.special_tokens();
  // Without special tokens in its side files a model still ends its texts.
  if (!out.contains("eos_token") && !model_.end_tokens().empty())
    out["eos_token"] = model_.tokenizer().decode(std::span(model_.end_tokens()).first(1));
  out["vocab_size"] = model_.config().vocab_size;
  out["chat_template"] = model_.has_chat() ? json::value(model_.chat_template()) : json::value();
  exchange->answer(json_answer(out));
}

void Service::apply_template(const std::shared_ptr<Exchange>& exchange) {
  const json::value body = body_of(*exchange);
  exchange->answer(json_answer(json::object{{"prompt", model_.render(read_chat(body))}}));
}

}  // namespace halo
