// What GGUF files of other ages and makers say, read as llama.cpp reads it or refused by key.
#include <gmock/gmock.h>

#include <cmath>

#include "halo/exchange/gguf_model_testing.h"

namespace halo {
namespace {

using namespace test;
using testing::AllOf;
using testing::ElementsAre;
using testing::HasSubstr;

RopeScaling scaling_of(const GgufWriter& writer) {
  const InMemory t(writer);
  return t.model().config().rope_scaling;
}

TEST(GgufForms, AFactorWithoutATypeIsLinear) {
  for (const char* key : {"llama.rope.scaling.factor", "llama.rope.scale_linear"}) {
    GgufWriter w = small_model();
    w.add(key, 4.0f);
    EXPECT_EQ(scaling_of(w), (RopeScaling{.type = RopeScaling::Type::kLinear, .factor = 4})) << key;
    w.add("llama.rope.scaling.type", "none");
    EXPECT_EQ(scaling_of(w), RopeScaling()) << key;
  }
  // Factors that change nothing; a type alone.
  for (const float factor : {0.0f, 1.0f}) {
    GgufWriter w = small_model();
    w.add("llama.rope.scaling.factor", factor);
    EXPECT_EQ(scaling_of(w), RopeScaling());
  }
  for (const char* type : {"linear", "yarn", "none"}) {
    GgufWriter w = small_model();
    w.add("llama.rope.scaling.type", type);
    EXPECT_EQ(scaling_of(w), RopeScaling()) << type;
  }
  // The newer name counts.
  GgufWriter both = small_model();
  both.add("llama.rope.scaling.factor", 2.0f);
  both.add("llama.rope.scale_linear", 4.0f);
  EXPECT_EQ(scaling_of(both).factor, 2);
  // Beside Llama 3's divisors there can be no other.
  GgufWriter w = small_model({.theta = 1e7f});
  w.tensor("rope_freqs.weight", {2}, {1, 8});
  w.add("llama.rope.scaling.factor", 2.0f);
  EXPECT_THAT(error_of(w), AllOf(HasSubstr("rope.scaling.type"), HasSubstr("rope_freqs.weight")));
}

GgufWriter yarn_model() {
  GgufWriter w = small_model();
  w.add("llama.rope.scaling.type", "yarn");
  w.add("llama.rope.scaling.factor", 4.0f);
  return w;
}

TEST(GgufForms, YarnsAttributes) {
  RopeScaling expected{.type = RopeScaling::Type::kYarn,
                       .factor = 4,
                       .original_max_position_embeddings = 512};  // the model's
  EXPECT_EQ(scaling_of(yarn_model()), expected);
  GgufWriter w = yarn_model();
  w.add("llama.rope.scaling.original_context_length", 128u);
  w.add("llama.rope.scaling.yarn_beta_fast", 16.0f);
  w.add("llama.rope.scaling.yarn_beta_slow", 2.0f);
  w.add("llama.rope.scaling.attn_factor", 0.5f);
  w.add("llama.rope.scaling.finetuned", true);
  w.add("llama.rope.scaling.yarn_ext_factor", -1.0f);
  w.add("llama.rope.scaling.yarn_attn_factor", 1.0f);
  w.add("llama.rope.scaling.yarn_log_multiplier", 0.0f);
  expected.original_max_position_embeddings = 128;
  expected.beta_fast = 16;
  expected.beta_slow = 2;
  // On top of the usual magnitude.
  expected.attention_factor = 0.5 * (0.1 * std::log(4.0) + 1);
  EXPECT_EQ(scaling_of(w), expected);
}

TEST(GgufForms, ScalingsThatNoConfigurationSaysAreRefusedByKey) {
  for (const char* name : {"yarn_ext_factor", "yarn_attn_factor", "yarn_log_multiplier"}) {
    GgufWriter w = yarn_model();
    w.add(std::string("llama.rope.scaling.") + name, 0.5f);
    EXPECT_THAT(error_of(w), AllOf(HasSubstr(name), HasSubstr("is 0.5"))) << name;
  }
  for (const char* type : {"linear", "none"}) {
    GgufWriter w = small_model();
    w.add("llama.rope.scaling.type", type);
    w.add("llama.rope.scaling.attn_factor", 0.5f);
    EXPECT_THAT(error_of(w), HasSubstr("'llama.rope.scaling.attn_factor' is 0.5")) << type;
  }
}

TEST(GgufForms, EveryEndToken) {
  EXPECT_EQ(tokenizer_of(byte_level("qwen2")).generation_config.at("eos_token_id"), 5);
  GgufWriter w = byte_level("qwen2");
  w.add("tokenizer.ggml.eot_token_id", 4u);
  w.add("tokenizer.ggml.eom_token_id", 5u);  // eos again
  const InMemory t(w);
  EXPECT_THAT(t.model().config().eos_token_ids, ElementsAre(5, 4));
  EXPECT_EQ(t.tokenizer().generation_config.at("eos_token_id"), (json::array{5, 4}));
  EXPECT_EQ(t.tokenizer().tokenizer_config.at("eos_token"), "<t>");
  GgufWriter wrong = byte_level("qwen2");
  wrong.add("tokenizer.ggml.eot_token_id", 6u);
  EXPECT_THAT(test::error_of([&] { tokenizer_of(wrong); }), HasSubstr("eot_token_id' is 6"));
}

TEST(GgufForms, WithoutThePreTokenizersName) {
  for (const char* architecture : {"qwen2", "qwen3"}) {
    const GgufModelOptions options{.architecture = architecture, .biases = true};
    EXPECT_EQ(tokenizer_of(byte_level(nullptr, options)).tokenizer,
              tokenizer_of(byte_level("qwen2", options)).tokenizer);
  }
  EXPECT_THAT(test::error_of([] { tokenizer_of(byte_level(nullptr)); }),
              HasSubstr("'tokenizer.ggml.pre' is missing, and models of architecture 'llama'"));
}

TEST(GgufForms, MoreTokensThanRows) {
  EXPECT_THAT(test::error_of([] { tokenizer_of(byte_level("qwen2", {.rows = 5})); }),
              HasSubstr("'tokenizer.ggml.tokens' has 6 entries for the 5 rows of "
                        "'token_embd.weight'"));
  // Fewer only fill up less of the matrix.
  tokenizer_of(byte_level("qwen2", {.rows = 7}));
}

TEST(GgufForms, ChatTemplatesWithNames) {
  GgufWriter w = byte_level("qwen2");
  w.add("tokenizer.chat_template.tool_use", "T");
  w.add("tokenizer.chat_template.rag", "R");
  w.add("tokenizer.chat_templates", std::vector<std::string>{"tool_use", "rag"});
  EXPECT_EQ(tokenizer_of(w).tokenizer_config.at("chat_template"),
            (json::array{json::object{{"name", "default"}, {"template", "{{ x }}"}},
                         json::object{{"name", "rag"}, {"template", "R"}},
                         json::object{{"name", "tool_use"}, {"template", "T"}}}));
}

}  // namespace
}  // namespace halo
