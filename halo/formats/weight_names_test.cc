#include "halo/formats/weight_names.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstring>

#include "halo/base/files.h"
#include "tests/testing.h"

namespace halo {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

constexpr float kOnes[] = {1, 1, 1, 1}, kTwos[] = {2, 2, 2, 2};

TensorView tensor(const std::string& name, const float (&values)[4] = kOnes) {
  return {name, DType::kF32, {2, 2}, std::as_bytes(std::span(values))};
}

std::vector<std::string> names(const std::vector<TensorView>& tensors) {
  std::vector<std::string> out;
  for (const TensorView& t : tensors) out.push_back(t.name);
  return out;
}

json::object config(bool tied) {
  return {{"model_type", "llama"},      {"vocab_size", 2},        {"hidden_size", 2},
          {"intermediate_size", 2},     {"num_hidden_layers", 1}, {"num_attention_heads", 1},
          {"tie_word_embeddings", tied}};
}

TEST(WeightNames, ThePrefixOfModelsSavedWithoutTheirHead) {
  EXPECT_EQ(full_tensor_name("embed_tokens.weight"), "model.embed_tokens.weight");
  EXPECT_EQ(full_tensor_name("layers.10.mlp.up_proj.weight"), "model.layers.10.mlp.up_proj.weight");
  EXPECT_EQ(full_tensor_name("norm.weight"), "model.norm.weight");
  for (const char* name : {"model.norm.weight", "lm_head.weight", "other.norm.weight",
                           "language_model.model.norm.weight", "normal.weight", "layers"})
    EXPECT_EQ(full_tensor_name(name), name);
}

TEST(WeightNames, FilesGiveFullNames) {
  const test::Folder folder;
  const std::vector<TensorView> tensors = {tensor("norm.weight"), tensor("embed_tokens.weight"),
                                           tensor("lm_head.weight")};
  write_safetensors(folder / "model.safetensors", tensors);
  const WeightFiles single(folder.path());
  EXPECT_THAT(names(single.tensors()),
              ElementsAre("lm_head.weight", "model.embed_tokens.weight", "model.norm.weight"));
  EXPECT_EQ(single.find("norm.weight"), nullptr);
  ASSERT_NE(single.find("model.norm.weight"), nullptr);

  // In shards, whose index has the names of the files.
  std::filesystem::remove(folder / "model.safetensors");
  write_safetensors(folder / "a.safetensors", std::vector{tensors[0]});
  write_safetensors(folder / "b.safetensors", std::vector{tensors[1], tensors[2]});
  write_json(folder / "model.safetensors.index.json",
             json::object{{"weight_map",
                           {{"norm.weight", "a.safetensors"},
                            {"embed_tokens.weight", "b.safetensors"},
                            {"lm_head.weight", "b.safetensors"}}}});
  EXPECT_EQ(names(WeightFiles(folder.path()).tensors()), names(single.tensors()));

  write_safetensors(folder / "model.safetensors",
                    std::vector{tensor("norm.weight"), tensor("model.norm.weight")});
  EXPECT_THAT(test::error_of([&] { WeightFiles files(folder.path()); }),
              HasSubstr("'model.norm.weight' is there with and without"));
}

TEST(WeightNames, ConstantBuffers) {
  for (const char* name :
       {"model.rotary_emb.inv_freq", "model.layers.3.self_attn.rotary_emb.inv_freq",
        "rotary_emb.inv_freq", "model.rotary_emb.original_inv_freq",
        "model.layers.0.self_attn.rotary_emb.cos_cached",
        "model.layers.0.self_attn.rotary_emb.sin_cached", "position_ids",
        "model.embed_tokens.position_ids"})
    EXPECT_TRUE(is_constant_buffer(tensor(name))) << name;
  for (const char* name : {"model.rotary_emb.other", "model.norm.weight", "model.inv_freq",
                           "model.layers.0.self_attn.q_proj.bias", "x_position_ids"})
    EXPECT_FALSE(is_constant_buffer(tensor(name))) << name;
  // Masks by their shape or type: a parameter of such a name would be one.
  TensorView mask{"model.layers.0.self_attn.bias", DType::kF32, {1, 1, 8, 8}, {}};
  EXPECT_TRUE(is_constant_buffer(mask));
  mask = {"model.layers.0.attn.bias", DType::kBool, {8, 8}, {}};
  EXPECT_TRUE(is_constant_buffer(mask));
  mask = {"model.layers.0.attn.masked_bias", DType::kF32, {}, {}};
  EXPECT_TRUE(is_constant_buffer(mask));
  EXPECT_FALSE(is_constant_buffer(tensor("model.layers.0.self_attn.bias")));
}

TEST(WeightNames, TiedHeads) {
  const auto tied = parse_model_config(config(true), "c.json");
  const auto untied = parse_model_config(config(false), "c.json");
  const TensorView embedding = tensor("model.embed_tokens.weight");
  const std::vector<TensorView> equal = {embedding, tensor("lm_head.weight"),
                                         tensor("model.rotary_emb.inv_freq")};
  const std::vector<TensorView> other = {embedding, tensor("lm_head.weight", kTwos)};
  EXPECT_FALSE(has_own_head(equal));
  EXPECT_TRUE(has_own_head(other));
  EXPECT_FALSE(has_own_head({embedding}));
  EXPECT_FALSE(has_own_head({tensor("lm_head.weight")}));

  EXPECT_THAT(names(model_tensors(equal, tied)), ElementsAre("model.embed_tokens.weight"));
  EXPECT_THAT(names(model_tensors(equal, untied)),
              ElementsAre("model.embed_tokens.weight", "lm_head.weight"));
  // Stored once, as the head.
  EXPECT_THAT(names(model_tensors({tensor("lm_head.weight")}, tied)),
              ElementsAre("model.embed_tokens.weight"));
  EXPECT_THAT(names(model_tensors({tensor("lm_head.weight")}, untied)),
              ElementsAre("lm_head.weight"));
}

TEST(WeightNames, AHeadThatDiffersIsNotTied) {
  const test::Folder folder;
  write_json(folder / "config.json", config(true));
  EXPECT_TRUE(read_model_config(folder.path()).tie_word_embeddings);  // no weights
  const auto write = [&](const TensorView& embedding, const std::vector<TensorView>& more) {
    std::vector<TensorView> tensors = {embedding};
    tensors.insert(tensors.end(), more.begin(), more.end());
    write_safetensors(folder / "model.safetensors", tensors);
    return read_model_config(folder.path()).tie_word_embeddings;
  };
  EXPECT_TRUE(write(tensor("model.embed_tokens.weight"), {}));
  EXPECT_TRUE(write(tensor("model.embed_tokens.weight"), {tensor("lm_head.weight")}));
  EXPECT_FALSE(write(tensor("model.embed_tokens.weight"), {tensor("lm_head.weight", kTwos)}));
  EXPECT_FALSE(write(tensor("embed_tokens.weight"), {tensor("lm_head.weight", kTwos)}));
  write_json(folder / "config.json", config(false));
  EXPECT_FALSE(write(tensor("model.embed_tokens.weight"), {tensor("lm_head.weight")}));
}

TEST(EndTokens, AreThoseOfTheGenerationConfig) {
  const test::Folder folder;
  json::object object = config(true);
  object["eos_token_id"] = 1;
  const ModelConfig c = parse_model_config(object, "c.json");
  const auto path = folder / "generation_config.json";
  EXPECT_THAT(read_end_tokens(folder.path(), c), ElementsAre(1));
  write_file(path, R"({"eos_token_id": [1, 0]})");
  EXPECT_THAT(read_end_tokens(folder.path(), c), ElementsAre(1, 0));
  write_file(path, R"({"eos_token_id": 0, "do_sample": true})");
  EXPECT_THAT(read_end_tokens(folder.path(), c), ElementsAre(0));
  // The file counts even where it names none; tokens that the model lacks never come.
  for (const char* none : {"{}", R"({"eos_token_id": null})", R"({"eos_token_id": []})"}) {
    write_file(path, none);
    EXPECT_THAT(read_end_tokens(folder.path(), c), testing::IsEmpty()) << none;
  }
  write_file(path, R"({"eos_token_id": [5, -1]})");
  EXPECT_THAT(read_end_tokens(folder.path(), c), ElementsAre(5, -1));
  for (const char* wrong : {R"({"eos_token_id": "</s>"})", R"({"eos_token_id": [1.5]})", "[]"}) {
    write_file(path, wrong);
    EXPECT_THAT(test::error_of([&] { read_end_tokens(folder.path(), c); }),
                HasSubstr("generation_config.json"))
        << wrong;
  }
}

}  // namespace
}  // namespace halo
