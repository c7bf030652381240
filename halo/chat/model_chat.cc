// The chat templates of a model directory.
#include "halo/base/files.h"
#include "halo/base/json.h"
#include "halo/chat/chat_template.h"
#include "halo/tokenizer/special_tokens.h"

namespace halo {

namespace fs = std::filesystem;

ModelChat::ModelChat(const fs::path& model)
    : special_tokens_(special_tokens(model)), model_(model.string()) {
  const auto set_default = [this](const std::string& text, const std::string& name) {
    default_ = std::make_shared<const ChatTemplate>(text, name);
    default_source_ = text;
  };
  const auto set_tool_use = [this](const std::string& text, const std::string& name) {
    tool_use_ = std::make_shared<const ChatTemplate>(text, name);
    tool_use_source_ = text;
  };
  const fs::path config_file = model / "tokenizer_config.json";
  json::value chosen;
  if (fs::exists(config_file)) {
    const json::value config = read_json(config_file);
    if (!config.is_object()) throw_error("{}: expected a JSON object", config_file.string());
    if (const json::value* found = config.as_object().if_contains("chat_template")) chosen = *found;
  }
  const fs::path jinja_file = model / "chat_template.jinja";
  const fs::path tool_file = model / "additional_chat_templates" / "tool_use.jinja";
  const auto add_named = [&](const std::string& name, const std::string& text) {
    const std::string place = fmt::format("{}: chat_template {}", config_file.string(), name);
    if (name == "default") set_default(text, place);
    if (name == "tool_use") set_tool_use(text, place);
  };
  if (fs::exists(jinja_file) || fs::exists(tool_file)) {
    if (fs::exists(jinja_file)) set_default(read_file(jinja_file), jinja_file.string());
    if (fs::exists(tool_file)) set_tool_use(read_file(tool_file), tool_file.string());
  } else if (chosen.is_array()) {
    for (const json::value& entry : chosen.as_array()) {
      if (!entry.is_object())
        throw_error("{}: chat_template: expected objects", config_file.string());
      add_named(json_get<std::string>(entry.as_object(), "name", config_file.string()),
                json_get<std::string>(entry.as_object(), "template", config_file.string()));
    }
  } else if (chosen.is_object()) {
    for (const auto& [name, unused] : chosen.as_object())
      add_named(std::string(name),
                json_get<std::string>(chosen.as_object(), name, config_file.string()));
  } else if (chosen.is_string()) {
    set_default(std::string(chosen.as_string()), config_file.string() + ": chat_template");
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

const std::string& ModelChat::source(bool with_tools) const {
  return with_tools && tool_use_ ? tool_use_source_ : default_source_;
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
