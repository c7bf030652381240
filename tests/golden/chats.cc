// Chat templates: the text of every conversation.
#include "halo/base/files.h"
#include "halo/base/json.h"
#include "halo/chat/chat_template.h"
#include "tests/golden/forms.h"

namespace halo::golden {

namespace fs = std::filesystem;

std::vector<std::string> chat_template_names(const fs::path& folder) {
  std::vector<std::string> names;
  for (const auto& entry : fs::directory_iterator(folder)) {
    if (entry.path().extension() != ".jinja") continue;
    const fs::path cases = fs::path(entry.path()).replace_extension(".json");
    if (fs::exists(cases)) names.push_back(entry.path().stem().string());
  }
  return names;
}

void check_chat_template(const fs::path& folder, const std::string& name, Findings& findings) {
  const fs::path file = folder / (name + ".jinja");
  const ChatTemplate chat(read_file(file), file.string());
  const fs::path cases_file = folder / (name + ".json");
  const json::value cases = read_json(cases_file);
  for (const json::value& entry : cases.as_array()) {
    const json::object& object = entry.as_object();
    const auto what = json_get<std::string>(object, "name", cases_file.string());
    ChatOptions options;
    options.tools = object.at("tools");
    options.add_generation_prompt =
        json_get<bool>(object, "add_generation_prompt", cases_file.string());
    options.variables = json_get<json::object>(object, "extra", cases_file.string());
    findings.equal(what, chat.render(object.at("messages").as_array(), options) ==
                             json_get<std::string>(object, "rendered", cases_file.string()));
  }
}

}  // namespace halo::golden
