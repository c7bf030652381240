// The config.json of each kind of teacher: its defaults, its biases and norms, what is refused.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "halo/base/check.h"
#include "halo/formats/model_config.h"
#include "tests/testing.h"

namespace halo {
namespace {

using testing::AllOf;
using testing::HasSubstr;

json::object teacher(const char* type) {
  return {{"model_type", type},       {"vocab_size", 100},        {"hidden_size", 64},
          {"intermediate_size", 96},  {"num_hidden_layers", 2},   {"num_attention_heads", 4},
          {"num_key_value_heads", 2}, {"sliding_window", nullptr}};
}

ModelConfig parse(const json::object& object) {
  return parse_model_config(object, "c.json");
}

json::object with(json::object object, const char* key, json::value value) {
  object[key] = std::move(value);
  return object;
}

std::string error_of(const json::object& object) {
  return test::error_of([&] { parse(object); });
}

TEST(TeacherConfig, TypeAndArchitectureAreWrittenAsRead) {
  const std::pair<const char*, const char*> types[] = {{"qwen3", "Qwen3ForCausalLM"},
                                                       {"qwen2", "Qwen2ForCausalLM"},
                                                       {"llama", "LlamaForCausalLM"},
                                                       {"mistral", "MistralForCausalLM"}};
  for (const auto& [type, architecture] : types) {
    json::object object = teacher(type);
    object["architectures"] = json::array{architecture};
    const ModelConfig c = parse(object);
    EXPECT_FALSE(c.is_hypenet());
    const json::object written = model_config_to_json(c);
    EXPECT_EQ(written.at("model_type"), type);
    EXPECT_EQ(written.at("architectures"), json::array{architecture});
    EXPECT_TRUE(written.at("sliding_window").is_null());
    EXPECT_EQ(parse(written), c) << type;
    for (const auto& [other, wrong] : types)
      if (other != type)
        EXPECT_THAT(error_of(with(object, "architectures", json::array{wrong})),
                    HasSubstr(architecture));
  }
}

TEST(TeacherConfig, BiasesAndNormsOfEachType) {
  const ModelConfig qwen3 = parse(teacher("qwen3")), qwen2 = parse(teacher("qwen2")),
                    llama = parse(teacher("llama")), mistral = parse(teacher("mistral"));
  EXPECT_TRUE(qwen3.attn_use_qk_norm);
  for (const ModelConfig* c : {&qwen2, &llama, &mistral}) EXPECT_FALSE(c->attn_use_qk_norm);
  EXPECT_TRUE(qwen2.attention_bias);
  EXPECT_FALSE(qwen2.attention_output_bias);
  for (const ModelConfig* c : {&qwen3, &llama, &mistral}) {
    EXPECT_FALSE(c->attention_bias);
    EXPECT_FALSE(c->attention_output_bias);
  }
  for (const char* type : {"qwen3", "llama", "hypenet"}) {
    const ModelConfig c = parse(with(teacher(type), "attention_bias", true));
    EXPECT_TRUE(c.attention_bias);
    EXPECT_TRUE(c.attention_output_bias);
    EXPECT_EQ(parse(model_config_to_json(c)), c);
  }
  // These two have no such key: transformers does not read it.
  EXPECT_FALSE(parse(with(teacher("mistral"), "attention_bias", true)).attention_bias);
  EXPECT_FALSE(model_config_to_json(qwen2).contains("attention_bias"));

  ModelConfig wrong = qwen2;
  wrong.attention_output_bias = true;
  EXPECT_THROW(model_config_to_json(wrong), Error);
  wrong = llama;
  wrong.attn_use_qk_norm = true;
  EXPECT_THROW(model_config_to_json(wrong), Error);
}

TEST(TeacherConfig, AbsentKeys) {
  EXPECT_EQ(parse(teacher("qwen3")).head_dim, 128);
  for (const char* type : {"qwen2", "llama", "mistral"}) {
    const ModelConfig c = parse(teacher(type));
    EXPECT_EQ(c.head_dim, 16) << type;
    EXPECT_EQ(c.rope_theta, 10000) << type;
    EXPECT_FALSE(c.tie_word_embeddings) << type;
    EXPECT_EQ(parse(with(teacher(type), "head_dim", 32)).head_dim, 32) << type;
    json::object object = teacher(type);
    object.erase("num_key_value_heads");
    if (std::string_view(type) == "llama") {
      EXPECT_EQ(parse(object).num_kv_heads, 4);
    } else {
      EXPECT_THAT(error_of(object), HasSubstr("'num_key_value_heads' is missing"));
    }
  }
  EXPECT_EQ(parse(teacher("llama")).max_position_embeddings, 2048);
  EXPECT_EQ(parse(teacher("mistral")).max_position_embeddings, 131072);
  EXPECT_EQ(parse(teacher("qwen2")).max_position_embeddings, 32768);
}

TEST(TeacherConfig, SlidingWindowsInUseAreRefused) {
  json::object mistral = teacher("mistral");
  EXPECT_EQ(error_of(mistral), "no error");
  mistral["sliding_window"] = 4096;
  EXPECT_THAT(error_of(mistral),
              AllOf(HasSubstr("'sliding_window' is 4096"), HasSubstr("not supported")));
  mistral["max_position_embeddings"] = 4096;  // nothing is ever outside it
  EXPECT_EQ(error_of(mistral), "no error");
  mistral.erase("sliding_window");  // means 4096
  EXPECT_EQ(error_of(mistral), "no error");
  mistral["max_position_embeddings"] = 4097;
  EXPECT_THAT(error_of(mistral), HasSubstr("'sliding_window' is missing"));
  // Qwen's files carry the size of a window that is switched off.
  json::object qwen = with(teacher("qwen2"), "sliding_window", 4096);
  qwen["use_sliding_window"] = false;
  EXPECT_EQ(error_of(qwen), "no error");
  qwen["use_sliding_window"] = true;
  EXPECT_THAT(error_of(qwen), HasSubstr("use_sliding_window"));
}

TEST(TeacherConfig, OtherFeaturesAreRefusedByName) {
  const std::pair<const char*, json::value> refused[] = {
      {"mlp_bias", true},
      {"rope_interleaved", true},
      {"num_local_experts", 8},
      {"hidden_act", "gelu"},
      {"partial_rotary_factor", 0.5},
      {"layer_types", {"chunked_attention", "full_attention"}}};
  for (const auto& [key, value] : refused)
    EXPECT_THAT(error_of(with(teacher("llama"), key, value)), HasSubstr(key)) << key;
  EXPECT_THAT(
      error_of(with(teacher("llama"), "rope_scaling", {{"rope_type", "longrope"}, {"factor", 2}})),
      AllOf(HasSubstr("'longrope'"), HasSubstr("not supported")));
}

TEST(TeacherConfig, RotarySettingsInBothSpellings) {
  const json::object llama3{{"rope_type", "llama3"},
                            {"factor", 8},
                            {"low_freq_factor", 1},
                            {"high_freq_factor", 4},
                            {"original_max_position_embeddings", 64}};
  const json::object scalings[] = {{{"rope_type", "default"}},
                                   {{"rope_type", "linear"}, {"factor", 2}},
                                   {{"rope_type", "yarn"}, {"factor", 4}},
                                   llama3};
  for (const json::object& scaling : scalings) {
    json::object old = teacher("llama"), recent = teacher("llama");
    old["rope_theta"] = 500000;
    old["rope_scaling"] = scaling;
    json::object parameters = scaling;
    parameters["rope_theta"] = 500000;
    recent["rope_parameters"] = parameters;
    EXPECT_EQ(parse(recent), parse(old)) << scaling;
    EXPECT_EQ(parse(recent).rope_theta, 500000);
    EXPECT_EQ(parse(model_config_to_json(parse(recent))), parse(old)) << scaling;

    // Both at once, as some versions write them, must agree.
    old["rope_parameters"] = parameters;
    EXPECT_EQ(parse(old), parse(recent)) << scaling;
    old["rope_theta"] = 10000;
    EXPECT_THAT(error_of(old), HasSubstr("rope_parameters"));
  }
  json::object both = with(teacher("llama"), "rope_scaling", llama3);
  both["rope_parameters"] = json::object{{"rope_type", "default"}, {"rope_theta", 10000}};
  EXPECT_THAT(error_of(both), HasSubstr("rope_parameters"));
  // A set for each kind of layer, where there are kinds (rope_config_test.cc).
  EXPECT_THAT(error_of(with(teacher("llama"), "rope_parameters",
                            {{"full_attention", {{"rope_type", "default"}}}})),
              HasSubstr("'rope_type'"));
}

}  // namespace
}  // namespace halo
