#include "halo/exchange/gguf_model.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <tuple>

#include "halo/exchange/gguf_model_testing.h"

namespace halo {
namespace {

using namespace test;
using testing::ElementsAre;
using testing::HasSubstr;

TEST(GgufModel, ConfigurationOfLlama) {
  const InMemory t(small_model());
  const GgufModel model = t.model();
  const ModelConfig& c = model.config();
  EXPECT_EQ(c.model_type, ModelType::kLlama);
  EXPECT_EQ(c.vocab_size, 6);
  EXPECT_EQ(c.hidden_size, 16);
  EXPECT_EQ(c.intermediate_size, 24);
  EXPECT_EQ(c.num_layers, 1);
  EXPECT_EQ(c.num_heads, 4);
  EXPECT_EQ(c.num_kv_heads, 2);
  EXPECT_EQ(c.head_dim, 4);
  EXPECT_EQ(c.max_position_embeddings, 512);
  EXPECT_EQ(c.rope_theta, 500000);
  EXPECT_EQ(c.rms_norm_eps, 1e-5);  // not the fp32 number next to it
  EXPECT_TRUE(c.tie_word_embeddings);
  EXPECT_EQ(model_config_to_json(c).at("architectures"), json::array{"LlamaForCausalLM"});
}

TEST(GgufModel, ConfigurationOfTheOthers) {
  const InMemory qwen2(small_model({.architecture = "qwen2", .head = true, .biases = true}));
  const GgufModel two = qwen2.model();
  EXPECT_EQ(two.config().model_type, ModelType::kQwen2);
  EXPECT_FALSE(two.config().tie_word_embeddings);
  EXPECT_EQ(find(two, "lm_head.weight").shape, (std::vector<int64_t>{6, 16}));
  EXPECT_EQ(find(two, "model.layers.0.self_attn.k_proj.bias").shape, std::vector<int64_t>{8});

  GgufWriter w = small_model({.architecture = "qwen3", .norms = true});
  w.add("qwen3.attention.key_length", 4u);
  w.add("qwen3.attention.value_length", 4u);
  const InMemory qwen3(w);
  const GgufModel three = qwen3.model();
  EXPECT_EQ(three.config().model_type, ModelType::kQwen3);
  EXPECT_EQ(read_all(three, "model.layers.0.self_attn.q_norm.weight"), counting(4));
  // Stored as they are: only llama's are permuted.
  EXPECT_EQ(read_all(three, "model.layers.0.self_attn.q_proj.weight"), counting(256));
}

TEST(GgufModel, RotaryPairsOfLlamaAreUndone) {
  // What writers of such files do to q and k: each head's rows [2, d/2] become [d/2, 2].
  const auto paired = [](const std::vector<float>& rows, int64_t heads, int64_t length) {
    const int64_t size = static_cast<int64_t>(rows.size()) / length / heads;
    std::vector<float> out;
    for (int64_t head = 0; head < heads; ++head)
      for (int64_t pair = 0; pair < size / 2; ++pair)
        for (int64_t half = 0; half < 2; ++half) {
          const auto row = rows.begin() + (head * size + half * size / 2 + pair) * length;
          out.insert(out.end(), row, row + length);
        }
    return out;
  };
  const InMemory t(small_model({.biases = true}));
  const GgufModel model = t.model();
  const std::string p = "model.layers.0.self_attn.";
  EXPECT_EQ(paired(read_all(model, p + "q_proj.weight"), 4, 16), counting(256));
  EXPECT_EQ(paired(read_all(model, p + "k_proj.weight"), 2, 16), counting(128));
  EXPECT_EQ(paired(read_all(model, p + "q_proj.bias"), 4, 1), counting(16));
  EXPECT_EQ(read_all(model, p + "v_proj.weight"), counting(128));
  EXPECT_EQ(read_all(model, p + "v_proj.bias"), counting(8));
  // Some rows alone are those rows of all.
  std::vector<float> rows(32);
  read_rows(find(model, p + "q_proj.weight"), 5, rows);
  const std::vector<float> all = read_all(model, p + "q_proj.weight");
  EXPECT_TRUE(std::equal(rows.begin(), rows.end(), all.begin() + 5 * 16));
}

TEST(GgufModel, RotaryScaling) {
  const auto scaling = [](const GgufWriter& writer) {
    const InMemory t(writer);
    return t.model().config().rope_scaling;
  };
  GgufWriter w = small_model();
  w.add("llama.rope.scaling.type", "linear");
  w.add("llama.rope.scaling.factor", 2.5f);
  EXPECT_EQ(scaling(w).type, RopeScaling::Type::kLinear);
  EXPECT_EQ(scaling(w).factor, 2.5);
  w = small_model();
  w.add("llama.rope.scaling.type", "yarn");
  w.add("llama.rope.scaling.factor", 4.0f);
  w.add("llama.rope.scaling.original_context_length", 128u);
  EXPECT_EQ(scaling(w).type, RopeScaling::Type::kYarn);
  EXPECT_EQ(scaling(w).original_max_position_embeddings, 128);
  w = small_model();
  w.add("llama.rope.scaling.type", "longrope");
  EXPECT_THAT(error_of(w), HasSubstr("'longrope'"));

  // Llama 3's. With this theta the second of two frequencies turns 0.4 times in 8192 positions.
  w = small_model({.theta = 1e7f});
  w.tensor("rope_freqs.weight", {2}, {1, 8});
  EXPECT_EQ(scaling(w).type, RopeScaling::Type::kLlama3);
  EXPECT_EQ(scaling(w).factor, 8);
  EXPECT_EQ(scaling(w).original_max_position_embeddings, 8192);
  // With this one 1.8 times, so 8 is not its divisor.
  w = small_model();
  w.tensor("rope_freqs.weight", {2}, {1, 8});
  EXPECT_THAT(error_of(w), HasSubstr("'rope_freqs.weight' is no rotary scaling"));
  w = small_model();
  w.tensor("rope_freqs.weight", {1}, {1});
  EXPECT_THAT(error_of(w), HasSubstr("must hold 2 numbers"));
}

TEST(GgufModel, WhatHasNoCounterpartIsRefusedByName) {
  GgufWriter w = small_model();
  w.tensor("blk.0.attn_rot_embd.weight", {4}, counting(4));
  EXPECT_THAT(error_of(w), HasSubstr("'blk.0.attn_rot_embd.weight' belongs to nothing"));
  for (const char* name : {"blk.x.attn_q.weight", "blk..attn_q.weight", "blk.99999.attn_q.weight",
                           "blk.0", "output.scale"}) {
    w = small_model();
    w.tensor(name, {4}, counting(4));
    EXPECT_THAT(error_of(w), HasSubstr("belongs to nothing")) << name;
  }
  EXPECT_THAT(error_of(small_model({.architecture = "gemma"})),
              HasSubstr("architecture 'gemma' is not supported"));
  for (const auto& [key, value, error] :
       {std::tuple("llama.expert_count", 8u, "'llama.expert_count' is not supported"),
        {"llama.attention.sliding_window", 4096u, "sliding_window"},
        {"llama.rope.dimension_count", 2u, "'llama.rope.dimension_count' is not 4"},
        {"llama.vocab_size", 7u, "'llama.vocab_size' is not 6"}}) {
    w = small_model();
    w.add(key, value);
    EXPECT_THAT(error_of(w), HasSubstr(error));
  }
  GgufWriter text = small_model();
  text.add("llama.attention.key_length", "four");
  EXPECT_THAT(error_of(text), HasSubstr("another type"));
}

TEST(GgufModel, NumbersOutOfRange) {
  for (const char* key :
       {"block_count", "context_length", "embedding_length", "feed_forward_length",
        "attention.head_count", "attention.head_count_kv"}) {
    for (const int64_t value : {int64_t{0}, int64_t{-1}, INT64_MIN, INT64_MAX})
      EXPECT_THAT(error_of(small_model({.replaced = key, .value = value})), HasSubstr("m.gguf: "))
          << key << " " << value;
  }
  // In range, but not what the tensors are.
  EXPECT_THAT(error_of(small_model({.replaced = "attention.head_count", .value = 2})),
              HasSubstr("'blk.0.attn_k.weight' has 8 rows, expected 2 heads of 8"));
}

// ---- Tokenizers.

TEST(GgufTokenizer, ByteLevel) {
  const GgufTokenizer t = tokenizer_of(byte_level("smollm"));
  EXPECT_EQ(t.tokenizer.at("model").at("vocab"),
            (json::object{{"<s>", 0}, {"a", 1}, {"b", 2}, {"\u0120", 3}, {"ab", 4}, {"<t>", 5}}));
  EXPECT_EQ(t.tokenizer.at("model").at("merges"), (json::array{json::array{"a", "b"}}));
  const json::array& added = t.tokenizer.at("added_tokens").as_array();
  ASSERT_EQ(added.size(), 2u);
  EXPECT_EQ(added[0].at("content"), "<s>");
  EXPECT_EQ(added[0].at("special"), true);
  EXPECT_EQ(added[1].at("content"), "<t>");
  EXPECT_EQ(added[1].at("special"), false);
  EXPECT_TRUE(t.tokenizer.at("normalizer").is_null());
  EXPECT_TRUE(t.tokenizer.at("post_processor").is_null());  // no BOS of itself
  EXPECT_EQ(t.tokenizer.at("pre_tokenizer").at("pretokenizers").at(0).at("type"), "Digits");
  EXPECT_EQ(t.tokenizer_config.at("bos_token"), "<s>");
  EXPECT_EQ(t.tokenizer_config.at("eos_token"), "<t>");
  EXPECT_EQ(t.tokenizer_config.at("chat_template"), "{{ x }}");
  EXPECT_EQ(t.tokenizer_config.at("model_max_length"), 512);
  EXPECT_EQ(t.generation_config.at("eos_token_id"), 5);
}

TEST(GgufTokenizer, PreTokenizersByName) {
  const json::object qwen2 = tokenizer_of(byte_level("qwen2")).tokenizer;
  EXPECT_EQ(qwen2.at("normalizer").at("type"), "NFC");
  EXPECT_TRUE(qwen2.at("post_processor").is_null());
  const json::object llama3 = tokenizer_of(byte_level("llama-bpe")).tokenizer;
  EXPECT_TRUE(llama3.at("normalizer").is_null());
  EXPECT_EQ(llama3.at("model").at("ignore_merges"), true);
  EXPECT_EQ(llama3.at("post_processor").at("single").at(0).at("SpecialToken").at("id"), "<s>");
  const auto& regex =
      llama3.at("pre_tokenizer").at("pretokenizers").at(0).at("pattern").at("Regex").as_string();
  EXPECT_NE(regex.find("\\p{N}{1,3}"), regex.npos);
  GgufWriter w = byte_level("llama-bpe");
  w.add("tokenizer.ggml.add_bos_token", false);
  EXPECT_TRUE(tokenizer_of(w).tokenizer.at("post_processor").is_null());
  EXPECT_THAT(error_of(byte_level("qwen35")), HasSubstr("the nearest that is: 'qwen2'"));
}

TEST(GgufTokenizer, SentencePieceMergesFollowTheScores) {
  GgufWriter w = small_model({.rows = 8});
  w.add("tokenizer.ggml.model", "llama");
  w.add("tokenizer.ggml.tokens",
        std::vector<std::string>{"<unk>", "<s>", "<0x00>", "a", "b", "ab", "aba", "<0x41>"});
  w.add("tokenizer.ggml.token_type", std::vector<int32_t>{2, 3, 6, 1, 1, 1, 1, 6});
  w.add("tokenizer.ggml.scores", std::vector<float>{0, 0, 0, -4, -3, -2, -1, 0});
  w.add("tokenizer.ggml.bos_token_id", 1u);
  w.add("tokenizer.ggml.unknown_token_id", 0u);
  const json::object t = tokenizer_of(w).tokenizer;
  EXPECT_EQ(t.at("model").at("merges"),
            (json::array{json::array{"ab", "a"}, json::array{"a", "b"}}));
  EXPECT_EQ(t.at("model").at("byte_fallback"), true);
  EXPECT_EQ(t.at("model").at("unk_token"), "<unk>");
  EXPECT_EQ(t.at("normalizer").at("normalizers").as_array().size(), 2u);
  EXPECT_EQ(t.at("decoder").at("decoders").as_array().size(), 4u);
  EXPECT_EQ(t.at("post_processor").at("special_tokens").at("<s>").at("ids"), json::array{1});
}

TEST(GgufTokenizer, WrongListsAreRefused) {
  const auto with = [](const char* key, auto value) {
    GgufWriter w = small_model();
    w.add("tokenizer.ggml.model", "gpt2");
    w.add("tokenizer.ggml.pre", "gpt-2");
    const std::string tokens = "tokenizer.ggml.tokens", merges = "tokenizer.ggml.merges";
    if (key != tokens) w.add(tokens, std::vector<std::string>{"a", "b", "ab"});
    if (key != merges) w.add(merges, std::vector<std::string>{"a b"});
    w.add(key, value);
    return error_of(w);
  };
  EXPECT_THAT(with("tokenizer.ggml.tokens", std::vector<std::string>{"a", "a"}),
              HasSubstr("has 'a' twice"));
  for (const char* merge : {"ab", "a b c", " ", "a"})
    EXPECT_THAT(with("tokenizer.ggml.merges", std::vector<std::string>{merge}),
                HasSubstr("tokenizer.ggml.merges"))
        << merge;
  EXPECT_THAT(with("tokenizer.ggml.token_type", std::vector<int32_t>{1}),
              HasSubstr("has 1 entries for 3 tokens"));
  EXPECT_THAT(with("tokenizer.ggml.eos_token_id", 3u), HasSubstr("is 3, there are 3 tokens"));
  EXPECT_THAT(error_of(small_model()), HasSubstr("'tokenizer.ggml.tokens' is missing"));
}

}  // namespace
}  // namespace halo
