// The chat templates of a model directory.
#include "halo/base/files.h"
#include "halo/base/json.h"
#include "halo/chat/chat_template.h"

namespace halo {
namespace {

namespace fs = std::filesystem;

// A token is a text, or an object with it; null where the model has none.
json::object special_tokens(const json::object& config, const std::string& file) {
  json::object out;
  for (const char* name : {"bos_token", "eos_token", "unk_token", "sep_token", "pad_token",
                           "cls_token", "mask_token"}) {
    const json::value* token = config.if_contains(name);
    if (!token || token->is_null()) continue;
    out[name] = token->is_object() ? json_get<std::string>(token->as_object(), "content", file)
                                   : json_get<std::string>(config, name, file);
  }
  if (const json::value* more = config.if_contains("additional_special_tokens");
      more && more->is_array() && !more->as_array().empty()) {
    json::array tokens;
    for (const json::value& token : more->as_array()) {
      tokens.push_back(token.is_object() ? token.as_object().at("content") : token);
    }
    out["additional_special_tokens"] = std::move(tokens);
  }
  return out;
}

}  // namespace

ModelChat::ModelChat(const fs::path& model) : model_(model.string()) {
  const auto make = [](const std::string& text, const std::string& name) {
    return std::make_shared<const ChatTemplate>(text, name);
  };
  const fs::path config_file = model / "tokenizer_config.json";
  json::value chosen;
  if (fs::exists(config_file)) {
    const json::value config = read_json(config_file);
    if (!config.is_object()) throw_error("{}: expected a JSON object", config_file.string());
    special_tokens_ = special_tokens(config.as_object(), config_file.string());
    if (const json::value* found = config.as_object().if_contains("chat_template")) chosen = *found;
  }
  const fs::path jinja_file = model / "chat_template.jinja";
  const fs::path tool_file = model / "additional_chat_templates" / "tool_use.jinja";
  if (fs::exists(jinja_file)) {
    default_ = make(read_file(jinja_file), jinja_file.string());
    if (fs::exists(tool_file)) tool_use_ = make(read_file(tool_file), tool_file.string());
  } else if (chosen.is_array()) {
    for (const json::value& entry : chosen.as_array()) {
      if (!entry.is_object())
        throw_error("{}: chat_template: expected objects", config_file.string());
      const auto name = json_get<std::string>(entry.as_object(), "name", config_file.string());
      const auto text = json_get<std::string>(entry.as_object(), "template", config_file.string());
      if (name == "default")
        default_ = make(text, config_file.string() + ": chat_template default");
      if (name == "tool_use") {
        tool_use_ = make(text, config_file.string() + ": chat_template tool_use");
      }
    }
  } else if (chosen.is_string()) {
    default_ = make(std::string(chosen.as_string()), config_file.string() + ": chat_template");
  } else if (!chosen.is_null()) {
    throw_error("{}: chat_template must be a text or a list", config_file.string());
  }
  if (!default_ && !tool_use_) {
    throw_error(
        "{}: no chat template: neither chat_template.jinja nor 'chat_template' in "
        "tokenizer_config.json",
        model_);
  }
}

std::string ModelChat::render(const json::array& messages, ChatOptions options) const {
  for (const auto& token : special_tokens_) {
    if (!options.variables.contains(token.key())) options.variables[token.key()] = token.value();
  }
  const ChatTemplate* chosen =
      !options.tools.is_null() && tool_use_ ? tool_use_.get() : default_.get();
  if (!chosen) throw_error("{}: no chat template for conversations without tools", model_);
  return chosen->render(messages, options);
}

}  // namespace halo
