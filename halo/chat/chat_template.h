// Chat templates: conversations to text, as the model was trained to see them.
#pragma once

#include <boost/json.hpp>
#include <chrono>
#include <filesystem>
#include <memory>
#include <string>
#include <string_view>

#include "halo/jinja/template.h"

namespace halo {

struct ChatOptions {
  boost::json::value tools, documents;  // lists, or null where there are none
  bool add_generation_prompt = false;   // end with the start of an answer
  boost::json::object variables;        // further ones, such as enable_thinking
  std::chrono::system_clock::time_point now = std::chrono::system_clock::now();
  TemplateLimits limits;
};

class ChatTemplate {
 public:
  // `source` is Jinja. Errors are those of jinja::Template.
  ChatTemplate(std::string_view source, std::string name) : template_(source, std::move(name)) {}

  // Safe from many threads at once.
  std::string render(const boost::json::array& messages, const ChatOptions& options) const;

 private:
  jinja::Template template_;
};

// The templates of a model directory with its special tokens (special_tokens.h):
// chat_template.jinja and additional_chat_templates/tool_use.jinja where there is one of them, else
// `chat_template` of tokenizer_config.json, a text or named ones. `tool_use` serves conversations
// with tools where the model has it.
class ModelChat {
 public:
  explicit ModelChat(const std::filesystem::path& model);

  // bos_token, eos_token and the others are variables too, unless the options have their own.
  std::string render(const boost::json::array& messages, ChatOptions options) const;

  // The Jinja text of the template that conversations with tools, or without, are rendered by;
  // empty where there is none.
  const std::string& source(bool with_tools) const;

 private:
  boost::json::object special_tokens_;
  std::shared_ptr<const ChatTemplate> default_, tool_use_;  // may be null
  std::string default_source_, tool_use_source_;
  std::string model_;
};

}  // namespace halo
