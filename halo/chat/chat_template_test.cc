#include "halo/chat/chat_template.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <map>

#include "halo/base/files.h"
#include "halo/base/json.h"
#include "tests/places.h"
#include "tests/testing.h"

namespace halo {
namespace {

namespace fs = std::filesystem;
using ::testing::HasSubstr;
using ::testing::StartsWith;

const fs::path kHere = test::source_dir() / "halo/jinja";

const json::object& jinja_cases() {
  static const json::value cases = read_json(kHere / "jinja_cases.json");
  return cases.as_object();
}

TEST(ChatTemplate, ConversationsRenderAsInJinja) {
  std::map<std::string, ChatTemplate> templates;
  for (const auto& file : fs::directory_iterator(kHere / "test_templates")) {
    const std::string name = file.path().stem().string();
    templates.emplace(name, ChatTemplate(read_file(file.path()), name));
  }
  int compared = 0;
  for (const json::value& value : jinja_cases().at("chats").as_array()) {
    const json::object& entry = value.as_object();
    const std::string name(entry.at("template").as_string());
    const json::value& messages =
        jinja_cases().at("conversations").at(entry.at("messages").as_string());
    ChatOptions options;
    options.variables = jinja_cases().at("chat_variables").as_object();
    for (const auto& member :
         jinja_cases().at("switches").at(entry.at("switches").as_int64()).as_object()) {
      if (member.key() == "tools") {
        options.tools = member.value();
      } else if (member.key() == "documents") {
        options.documents = member.value();
      } else if (member.key() == "add_generation_prompt") {
        options.add_generation_prompt = member.value().as_bool();
      } else {
        options.variables[member.key()] = member.value();
      }
    }
    std::string got;
    const std::string error =
        test::error_of([&] { got = templates.at(name).render(messages.as_array(), options); });
    const json::value& expected = entry.at("expected");
    const std::string what = json::serialize(json::object{entry.begin(), entry.find("expected")});
    if (expected.is_null()) {
      EXPECT_THAT(error, StartsWith(name + ":")) << what;
    } else {
      EXPECT_EQ(error, "no error") << what;
      EXPECT_EQ(got, std::string(expected.as_string())) << what;
    }
    ++compared;
  }
  EXPECT_EQ(compared, 270);
}

class ModelFolder {
 public:
  ModelFolder() { fs::create_directories(folder_ / "additional_chat_templates"); }
  void write(const std::string& name, const std::string& text) const {
    std::ofstream(folder_ / name) << text;
  }
  const fs::path& path() const { return folder_.path(); }

 private:
  test::Folder folder_;
};

std::string render_model(const fs::path& path, const json::value& tools = nullptr,
                         const json::object& variables = {}) {
  ChatOptions options;
  options.tools = tools;
  options.variables = variables;
  return ModelChat(path).render({}, options);
}

TEST(ModelChat, TemplateAndSpecialTokensOfTheConfiguration) {
  const ModelFolder model;
  model.write("tokenizer_config.json", R"({"bos_token": {"content": "<s>", "lstrip": false},
      "eos_token": "</s>", "pad_token": null, "additional_special_tokens": ["<a>", {"content": "<b>"}],
      "chat_template": "{{ bos_token ~ eos_token ~ pad_token ~ additional_special_tokens }}"})");
  EXPECT_EQ(render_model(model.path()), "<s></s>['<a>', '<b>']");
  EXPECT_EQ(render_model(model.path(), nullptr, {{"bos_token", "!"}}), "!</s>['<a>', '<b>']");
}

TEST(ModelChat, NamedTemplates) {
  const ModelFolder model;
  const std::string tool = "T{{ tools | length }}", rag = "{{";
  const json::object object{{"default", "D"}, {"tool_use", tool}, {"rag", rag}};
  json::array list;
  for (const auto& [name, text] : object)
    list.push_back(json::object{{"name", name}, {"template", text}});
  for (const json::value& templates : {json::value(list), json::value(object)}) {
    write_json(model.path() / "tokenizer_config.json", json::object{{"chat_template", templates}});
    EXPECT_EQ(render_model(model.path()), "D");
    EXPECT_EQ(render_model(model.path(), json::array{1, 2}), "T2");
  }
  // Files count before what the configuration has, all of it.
  model.write("additional_chat_templates/tool_use.jinja", "tools");
  EXPECT_EQ(render_model(model.path(), json::array{1}), "tools");
  EXPECT_THAT(test::error_of([&] { render_model(model.path()); }), HasSubstr("without tools"));
}

TEST(ModelChat, SpecialTokensOfTheMap) {
  const ModelFolder model;
  model.write("tokenizer_config.json", R"({"eos_token": "<old>", "image_token": "<i>",
      "chat_template": "{{ bos_token ~ eos_token ~ image_token }}"})");
  model.write("special_tokens_map.json",
              R"({"bos_token": {"content": "<s>"}, "eos_token": "</s>"})");
  EXPECT_EQ(render_model(model.path()), "<s></s><i>");
}

TEST(ModelChat, TheFileWins) {
  const ModelFolder model;
  model.write("tokenizer_config.json", R"({"bos_token": "<s>", "chat_template": "old"})");
  model.write("chat_template.jinja", "new {{ bos_token }}\n");
  EXPECT_EQ(render_model(model.path(), json::array{1}), "new <s>");
  model.write("additional_chat_templates/tool_use.jinja", "tools");
  EXPECT_EQ(render_model(model.path(), json::array{1}), "tools");
  EXPECT_EQ(render_model(model.path()), "new <s>");
}

TEST(ModelChat, ErrorsNameTheFile) {
  const ModelFolder model;
  EXPECT_THAT(test::error_of([&] { ModelChat chat(model.path()); }), HasSubstr("no chat template"));
  model.write("tokenizer_config.json", R"({"chat_template": "{{ x"})");
  EXPECT_THAT(test::error_of([&] { ModelChat chat(model.path()); }),
              HasSubstr("tokenizer_config.json: chat_template:1:1: a tag without its end"));
  model.write("tokenizer_config.json", R"({"chat_template": 5})");
  EXPECT_THAT(test::error_of([&] { ModelChat chat(model.path()); }), HasSubstr("a text or a list"));
}

}  // namespace
}  // namespace halo
