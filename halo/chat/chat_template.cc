#include "halo/chat/chat_template.h"

namespace halo {

std::string ChatTemplate::render(const boost::json::array& messages,
                                 const ChatOptions& options) const {
  boost::json::object variables{{"messages", messages},
                                {"tools", options.tools},
                                {"documents", options.documents},
                                {"add_generation_prompt", options.add_generation_prompt}};
  for (const auto& [name, value] : options.variables) variables[name] = value;
  return template_.render(variables, options.limits, options.now);
}

}  // namespace halo
