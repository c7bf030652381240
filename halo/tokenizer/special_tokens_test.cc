// What transformers 4.57.6 and 5.24 give to a template; where they differ, 5.24's, and the list
// of additional tokens, which 4.57 alone has.
#include "halo/tokenizer/special_tokens.h"

#include <gmock/gmock.h>

#include "halo/base/files.h"
#include "halo/base/json.h"
#include "tests/testing.h"

namespace halo {
namespace {

using testing::AllOf;
using testing::HasSubstr;

class SpecialTokens : public testing::Test {
 protected:
  void write(const char* name, const json::value& value) const {
    write_json(folder_ / name, value);
  }
  // Of a folder with these two files.
  json::object tokens(const json::object& config) const {
    write("tokenizer_config.json", config);
    return special_tokens(folder_.path());
  }
  json::object tokens(const json::object& config, const json::object& map) const {
    write("special_tokens_map.json", map);
    return tokens(config);
  }

  const test::Folder folder_;
};

const json::object kFast{{"tokenizer_class", "PreTrainedTokenizerFast"}};

json::object fast(const json::object& more) {
  json::object out = kFast;
  for (const auto& [key, value] : more) out[key] = value;
  return out;
}

json::object token(const char* text) {
  return {{"content", text}, {"lstrip", false}, {"normalized", false}, {"rstrip", false}};
}

TEST_F(SpecialTokens, OfTheConfiguration) {
  EXPECT_EQ(special_tokens(folder_.path()), json::object());
  EXPECT_EQ(tokens(fast({{"bos_token", "<b>"},
                         {"eos_token", token("<e>")},
                         {"pad_token", nullptr},
                         {"add_bos_token", true},
                         {"model_max_length", 5}})),
            (json::object{{"bos_token", "<b>"}, {"eos_token", "<e>"}}));
  EXPECT_EQ(tokens(fast({{"additional_special_tokens", {"<x>", token("<y>"), "<x>"}}})),
            (json::object{{"additional_special_tokens", {"<x>", "<y>"}}}));
  EXPECT_EQ(tokens(fast({{"additional_special_tokens", nullptr}})), json::object());
  for (const auto& [key, value] : {std::pair<const char*, json::value>{"bos_token", 5},
                                   {"eos_token", json::object()},
                                   {"additional_special_tokens", json::array{7}}}) {
    EXPECT_THAT(test::error_of([&] {
                  tokens(fast({{key, value}}));
                }),
                AllOf(HasSubstr("tokenizer_config.json"), HasSubstr(key)));
  }
}

TEST_F(SpecialTokens, OfTheMap) {
  const json::object map{{"bos_token", "<b>"},
                         {"eos_token", token("<e>")},
                         {"additional_special_tokens", {"<y>", token("<z>")}}};
  EXPECT_EQ(tokens(kFast, map), (json::object{{"bos_token", "<b>"},
                                              {"eos_token", "<e>"},
                                              {"additional_special_tokens", {"<y>", "<z>"}}}));
  // Over the configuration; lists are joined.
  EXPECT_EQ(tokens(fast({{"eos_token", "<other>"},
                         {"pad_token", "<p>"},
                         {"additional_special_tokens", {"<x>", "<z>"}}})),
            (json::object{{"eos_token", "<e>"},
                          {"pad_token", "<p>"},
                          {"bos_token", "<b>"},
                          {"additional_special_tokens", {"<x>", "<z>", "<y>"}}}));
  EXPECT_EQ(tokens(fast({{"eos_token", "<other>"}}), {{"eos_token", nullptr}}), json::object());
  // Not read beside added_tokens_decoder, even an empty one.
  EXPECT_EQ(tokens(fast({{"eos_token", "<other>"}, {"added_tokens_decoder", json::object()}}), map),
            (json::object{{"eos_token", "<other>"}}));
}

TEST_F(SpecialTokens, NamedOnes) {
  const json::object expected{{"image_token", "<i>"}, {"audio_token", "<a>"}};
  const json::object named{{"image_token", "<i>"}, {"audio_token", token("<a>")}};
  EXPECT_EQ(tokens(fast(named)), expected);
  EXPECT_EQ(tokens(fast({{"extra_special_tokens", named}})), expected);
  EXPECT_EQ(tokens(fast({{"model_specific_special_tokens", named}})), expected);
  EXPECT_EQ(tokens(kFast, named), expected);
  EXPECT_EQ(tokens(kFast, {{"extra_special_tokens", named}}), expected);
  EXPECT_EQ(tokens(kFast, {{"extra_special_tokens", {"<i>"}}}), json::object());
}

TEST_F(SpecialTokens, DefaultsOfTheClass) {
  const json::object llama{{"bos_token", "<s>"}, {"eos_token", "</s>"}, {"unk_token", "<unk>"}};
  const json::object qwen2{{"eos_token", "<|endoftext|>"},
                           {"pad_token", "<|endoftext|>"},
                           {"unk_token", "<|endoftext|>"}};
  const json::object gpt2{{"bos_token", "<|endoftext|>"},
                          {"eos_token", "<|endoftext|>"},
                          {"unk_token", "<|endoftext|>"}};
  for (const auto& [name, expected] : {std::pair{"LlamaTokenizer", llama},
                                       {"CodeLlamaTokenizer", llama},
                                       {"Qwen2Tokenizer", qwen2},
                                       {"GPT2Tokenizer", gpt2},
                                       {"GPTNeoXTokenizer", gpt2},
                                       {"PreTrainedTokenizer", {}}})
    for (const char* ending : {"", "Fast"})
      EXPECT_EQ(tokens({{"tokenizer_class", std::string(name) + ending}}), expected) << name;
  // What the files say counts, null as well.
  EXPECT_EQ(tokens({{"tokenizer_class", "LlamaTokenizer"}, {"bos_token", nullptr}},
                   {{"eos_token", "<e>"}}),
            (json::object{{"eos_token", "<e>"}, {"unk_token", "<unk>"}}));
}

TEST_F(SpecialTokens, TheClassOfAModelsType) {
  for (const auto& [type, number] :
       {std::pair{"qwen2", 3}, {"qwen3", 3}, {"llama", 0}, {"mistral", 0}}) {
    write("config.json", json::object{{"model_type", type}});
    EXPECT_EQ(tokens(json::object()).size(), static_cast<size_t>(number)) << type;
    EXPECT_EQ(tokens(kFast).size(), 0u) << type;
  }
}

TEST_F(SpecialTokens, OfLlamasClassOnBytesThereAreNoDefaults) {
  const json::object config{{"tokenizer_class", "LlamaTokenizerFast"}};
  for (const auto& [steps, number] :
       {std::pair<json::value, size_t>{json::object{{"type", "ByteLevel"}}, 0},
        {json::object{{"type", "Sequence"},
                      {"pretokenizers", json::array{json::object{{"type", "ByteLevel"}}}}},
         0},
        {json::object{{"type", "Metaspace"}}, 3},
        {nullptr, 3}})
    for (const char* part : {"pre_tokenizer", "decoder"}) {
      write("tokenizer.json", json::object{{part, steps}});
      EXPECT_EQ(tokens(config).size(), number) << steps << part;
    }
}

}  // namespace
}  // namespace halo
