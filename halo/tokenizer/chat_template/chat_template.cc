#include "halo/tokenizer/chat_template/chat_template.h"

#include "halo/tokenizer/chat_template/parser.h"
#include "halo/tokenizer/chat_template/renderer.h"

namespace halo {

struct ChatTemplate::Parsed {
  jinja::Source source;
  jinja::Block block;
};

ChatTemplate::ChatTemplate(std::string_view source, std::string name) {
  auto parsed =
      std::make_shared<Parsed>(Parsed{jinja::Source(source, std::move(name)), jinja::Block()});
  jinja::Budget budget{TemplateLimits()};
  parsed->block = jinja::parse_template(parsed->source, budget);
  parsed_ = std::move(parsed);
}

std::string ChatTemplate::render(const boost::json::array& messages,
                                 const ChatOptions& options) const {
  jinja::Budget budget(options.limits);
  std::vector<std::pair<std::string, jinja::Value>> variables;
  const auto add = [&](std::string_view name, const boost::json::value& value) {
    try {
      variables.emplace_back(name, jinja::from_json(budget, value));
    } catch (const Error& error) {
      throw_error("{}: {}", name, error.what());
    }
  };
  add("messages", messages);
  add("tools", options.tools);
  add("documents", options.documents);
  add("add_generation_prompt", options.add_generation_prompt);
  for (const auto& variable : options.variables) add(variable.key(), variable.value());
  return jinja::render_template(parsed_->source, parsed_->block, std::move(variables), budget,
                                options.now);
}

}  // namespace halo
