#include "halo/formats/model_config.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <cstdlib>
#include <set>

#include "halo/base/check.h"
#include "halo/base/files.h"
#include "tests/golden_testing.h"
#include "tests/places.h"
#include "tests/testing.h"

namespace halo {
namespace {

namespace fs = std::filesystem;
using testing::AllOf;
using testing::ElementsAre;
using testing::HasSubstr;

json::object minimal(const char* model_type) {
  return {{"model_type", model_type}, {"vocab_size", 100},      {"hidden_size", 64},
          {"intermediate_size", 128}, {"num_hidden_layers", 2}, {"num_attention_heads", 4},
          {"num_key_value_heads", 2}};
}

ModelConfig parse(const json::object& object) {
  return parse_model_config(object, "c.json");
}

ModelConfig with(const char* key, json::value value, const char* model_type = "hypenet") {
  json::object object = minimal(model_type);
  object[key] = std::move(value);
  return parse(object);
}

std::string error_of(const json::object& object) {
  return test::error_of([&] { parse(object); });
}

std::string error_with(const char* key, json::value value, const char* model_type = "hypenet") {
  json::object object = minimal(model_type);
  object[key] = std::move(value);
  return error_of(object);
}

TEST(ModelConfig, DefaultsOfHypenet) {
  const ModelConfig c = parse(minimal("hypenet"));
  EXPECT_TRUE(c.is_hypenet());
  EXPECT_EQ(c.head_dim, 128);
  EXPECT_EQ(c.rms_norm_eps, 1e-6);
  EXPECT_EQ(c.max_position_embeddings, 1048576);
  EXPECT_EQ(c.mixer_types, std::vector<MixerType>(2, MixerType::kAttention));
  EXPECT_TRUE(c.attn_use_rope);
  EXPECT_FALSE(c.attn_use_output_gate);
  EXPECT_TRUE(c.attn_use_qk_norm);
  EXPECT_EQ(c.attn_logits_scaling, LogitScale{});
  EXPECT_EQ(c.lightning_heads, 4);
  EXPECT_EQ(c.lightning_kv_heads, 2);
  EXPECT_EQ(c.lightning_head_dim, 128);
  EXPECT_EQ(c.lightning_scale, LightningScale::kInverseSqrtD);
  EXPECT_TRUE(c.lightning_use_rope);
  EXPECT_FALSE(c.lightning_use_qk_norm);
  EXPECT_FALSE(c.lightning_use_output_norm);
  EXPECT_FALSE(c.lightning_use_output_gate);
  EXPECT_FALSE(c.expand_kv_proj);
  EXPECT_FALSE(c.tie_word_embeddings);
  EXPECT_FALSE(c.attention_bias);
  EXPECT_FALSE(c.bos_token_id.has_value());
  EXPECT_TRUE(c.eos_token_ids.empty());
}

TEST(ModelConfig, NullAndAbsentSizes) {
  EXPECT_EQ(with("head_dim", nullptr).head_dim, 16);
  EXPECT_EQ(with("num_key_value_heads", nullptr).num_kv_heads, 4);
  EXPECT_EQ(with("lightning_nkv", nullptr).lightning_kv_heads, 2);
  json::object object = minimal("qwen3");
  object.erase("num_key_value_heads");
  EXPECT_THAT(error_of(object), HasSubstr("key 'num_key_value_heads' is missing"));
  object = minimal("qwen3");
  object.erase("vocab_size");
  EXPECT_EQ(error_of(object), "c.json: key 'vocab_size' is missing: a value is needed");
}

TEST(ModelConfig, MixersAndScales) {
  const ModelConfig c = with("mixer_types", {"lightning_attn", "attn"});
  EXPECT_THAT(c.mixer_types, ElementsAre(MixerType::kLightning, MixerType::kAttention));
  EXPECT_THAT(c.attention_layers(), ElementsAre(1));
  EXPECT_EQ(with("mixer_types", json::array{}).attention_layers().size(), 2u);
  EXPECT_DOUBLE_EQ(with("lightning_scale", "1/d").lightning_scale_value(), 1.0 / 128);
  EXPECT_EQ(with("lightning_scale", "none").lightning_scale_value(), 1.0);
  EXPECT_DOUBLE_EQ(c.lightning_scale_value(), 1 / std::sqrt(128.0));

  EXPECT_THAT(error_with("mixer_types", {"lightning-atn", "attn"}),
              AllOf(HasSubstr("c.json"), HasSubstr("'mixer_types'"), HasSubstr("'lightning-atn'"),
                    HasSubstr("nearest that is: 'lightning-attn'")));
  EXPECT_THAT(error_with("mixer_types", {"attn"}), HasSubstr("1 entries for 2 layers"));
  EXPECT_THAT(error_with("lightning_scale", "1/sqrt(D)"), HasSubstr("'1/sqrt(d)'"));
}

TEST(ModelConfig, LogitScale) {
  const auto scale = [](json::value value) {
    return with("attn_logits_scaling", std::move(value)).attn_logits_scaling;
  };
  EXPECT_EQ(scale(nullptr).kind, LogitScale::Kind::kNone);
  EXPECT_EQ(scale("hype").a, 362);
  EXPECT_EQ(scale("hype 500").a, 500);
  EXPECT_EQ(scale("hype 500").kind, LogitScale::Kind::kLogPosition);
  EXPECT_EQ(scale(2).constant, 2.0);
  EXPECT_EQ(scale(1.25).kind, LogitScale::Kind::kConstant);
  for (const char* text : {"hype500", "hype 500.5", "hype 1", "hype 0", "hype -3", "hype x",
                           "hype ", "hypes", "", "500", "hype 5 5", "hype 99999999999999999999"})
    EXPECT_THAT(error_with("attn_logits_scaling", text),
                AllOf(HasSubstr("key 'attn_logits_scaling'"), HasSubstr("\"hype A\"")))
        << text;
  EXPECT_NE(error_with("attn_logits_scaling", 0), "no error");
  EXPECT_NE(error_with("attn_logits_scaling", -1.5), "no error");
  EXPECT_NE(error_with("attn_logits_scaling", true), "no error");
}

TEST(ModelConfig, WritesConstantsAsFloatsAndAAsInteger) {
  const auto written = [](json::value value) {
    return model_config_to_json(with("attn_logits_scaling", std::move(value)))
        .at("attn_logits_scaling");
  };
  EXPECT_EQ(written("hype"), "hype 362");
  EXPECT_EQ(written("hype 1000000"), "hype 1000000");
  EXPECT_TRUE(written(2).is_double());
  EXPECT_TRUE(written(nullptr).is_null());
}

TEST(ModelConfig, RefusesWhatItCannotCompute) {
  for (const char* type : {"mixtral", "qwen2_moe", "gemma2"})
    EXPECT_THAT(error_of(minimal(type)),
                AllOf(HasSubstr(type), HasSubstr("not supported"), HasSubstr("qwen3, hypenet")));
  EXPECT_THAT(error_of(minimal("hypnet")), HasSubstr("'hypenet'"));
  EXPECT_THAT(error_with("use_sliding_window", true), HasSubstr("'use_sliding_window' is true"));
  EXPECT_THAT(error_with("num_experts", 8), HasSubstr("mixture of experts"));
  EXPECT_THAT(error_with("lightning_use_short_conv", true), HasSubstr("lightning_use_short_conv"));
  EXPECT_THAT(error_with("lightning_rope_scaling", json::object{}), HasSubstr("rope_scaling"));
  EXPECT_THAT(error_with("hidden_act", "gelu"), HasSubstr("silu"));
  EXPECT_THAT(error_with("layer_types", {"sliding_attention", "full_attention"}),
              HasSubstr("layer_types"));
  EXPECT_THAT(error_with("quantization_config", json::object{{"bits", 4}}),
              HasSubstr("`halo quantize` writes"));
  EXPECT_THAT(error_with("architectures", {"Qwen3ForSequenceClassification"}, "qwen3"),
              HasSubstr("Qwen3ForCausalLM"));
  EXPECT_THAT(error_with("mixer_types", {"attn", "attn"}, "qwen3"),
              HasSubstr("belongs to model_type \"hypenet\""));
  EXPECT_EQ(error_with("num_experts", 0), "no error");
  EXPECT_EQ(error_with("layer_types", {"full_attention", "full_attention"}), "no error");
}

TEST(ModelConfig, KnowsItsOwnInt8) {
  const json::object ours{{"quant_method", "halo"}, {"weights", "int8"}};
  const ModelConfig config = with("quantization_config", ours);
  EXPECT_TRUE(config.int8_weights);
  EXPECT_FALSE(config.other.contains("quantization_config"));
  EXPECT_EQ(model_config_to_json(config).at("quantization_config"), json::value(ours));
  EXPECT_FALSE(with("quantization_config", nullptr).int8_weights);
}

// A key that the authors' format does not have is written only where it says something.
TEST(ModelConfig, LearnedDecaysAreKept) {
  const ModelConfig config = with("lightning_learned_decay", true);
  EXPECT_TRUE(config.lightning_learned_decay);
  EXPECT_EQ(model_config_to_json(config).at("lightning_learned_decay"), true);
  const ModelConfig fixed = with("lightning_learned_decay", false);
  EXPECT_FALSE(fixed.lightning_learned_decay);
  EXPECT_FALSE(model_config_to_json(fixed).contains("lightning_learned_decay"));
  EXPECT_THAT(error_with("lightning_learned_decay", "yes"), HasSubstr("lightning_learned_decay"));
  EXPECT_THAT(error_with("lightning_learned_decay", true, "qwen3"),
              HasSubstr("belongs to model_type \"hypenet\""));
}

TEST(ModelConfig, RefusesValuesOutOfRange) {
  for (const auto& [key, value] : std::initializer_list<std::pair<const char*, json::value>>{
           {"vocab_size", 0},
           {"hidden_size", -1},
           {"num_hidden_layers", int64_t{1} << 40},
           {"num_attention_heads", 3},
           {"num_key_value_heads", 3},
           {"head_dim", 15},
           {"head_dim", 1 << 22},
           {"lightning_nkv", 3},
           {"lightning_head_dim", 7},
           {"rms_norm_eps", 0},
           {"rope_theta", 1},
           {"rope_theta", "x"},
           {"tie_word_embeddings", 1},
           {"hidden_size", 64.0},
           {"bos_token_id", 100},
           {"eos_token_id", json::array{1, -1}},
           {"eos_token_id", "x"}})
    EXPECT_THAT(error_with(key, value), HasSubstr("c.json: key '")) << key << " " << value;
}

TEST(ModelConfig, EndTokens) {
  EXPECT_THAT(with("eos_token_id", 3).eos_token_ids, ElementsAre(3));
  EXPECT_THAT(with("eos_token_id", {3, 5}).eos_token_ids, ElementsAre(3, 5));
  EXPECT_EQ(model_config_to_json(with("eos_token_id", {3, 5})).at("eos_token_id"),
            (json::array{3, 5}));
}

TEST(ModelConfig, RopeScalingRoundTrips) {
  for (const json::object& scaling : std::initializer_list<json::object>{
           {{"rope_type", "linear"}, {"factor", 2.5}},
           {{"type", "linear"}, {"factor", 2}},
           {{"rope_type", "llama3"},
            {"factor", 8.0},
            {"low_freq_factor", 1.0},
            {"high_freq_factor", 4.0},
            {"original_max_position_embeddings", 64}},
           {{"rope_type", "yarn"}, {"factor", 4.0}, {"original_max_position_embeddings", 32768}},
           {{"rope_type", "yarn"}, {"factor", 4.0}, {"attention_factor", 1.5}},
           {{"rope_type", "default"}}}) {
    const ModelConfig c = with("rope_scaling", scaling);
    EXPECT_EQ(parse(model_config_to_json(c)), c) << scaling;
  }
  EXPECT_EQ(with("rope_scaling", {{"rope_type", "yarn"}, {"factor", 4.0}})
                .rope_scaling.original_max_position_embeddings,
            1048576);
  EXPECT_THAT(error_with("rope_scaling", {{"rope_type", "dynamic"}, {"factor", 2}}),
              AllOf(HasSubstr("rope_scaling"), HasSubstr("'dynamic'")));
  EXPECT_THAT(error_with("rope_scaling", {{"rope_type", "linear"}}),
              HasSubstr("'factor' is missing"));
  EXPECT_THAT(error_with("rope_scaling", {{"rope_type", "linear"}, {"factr", 1}, {"factor", 1}}),
              HasSubstr("did you mean 'factor'"));
  EXPECT_THAT(error_with("rope_scaling", {{"factor", 1}, {"x", 1}}), HasSubstr("'rope_type'"));
}

TEST(RopeFrequencies, FollowTheirFormulas) {
  const auto frequencies = [](json::value scaling, int64_t head_dim) {
    return rope_frequencies(with("rope_scaling", std::move(scaling)), head_dim);
  };
  const auto plain = frequencies(nullptr, 16);
  ASSERT_EQ(plain.size(), 8u);
  for (int i = 0; i < 8; ++i) EXPECT_DOUBLE_EQ(plain[i], std::pow(10000.0, -2.0 * i / 16));
  const auto linear = frequencies({{"rope_type", "linear"}, {"factor", 4}}, 16);
  for (int i = 0; i < 8; ++i) EXPECT_DOUBLE_EQ(linear[i], plain[i] / 4);

  // Written as in Llama 3: by wavelength, in three branches.
  const auto llama3 = frequencies({{"rope_type", "llama3"},
                                   {"factor", 8},
                                   {"low_freq_factor", 1},
                                   {"high_freq_factor", 4},
                                   {"original_max_position_embeddings", 64}},
                                  16);
  std::set<int> branches;
  for (int i = 0; i < 8; ++i) {
    const double wavelength = 2 * M_PI / plain[i];
    double expected = plain[i];
    if (wavelength > 64.0) {
      expected /= 8;
      branches.insert(0);
    } else if (wavelength > 64.0 / 4) {
      const double smooth = (64 / wavelength - 1) / (4 - 1);
      expected = (1 - smooth) * plain[i] / 8 + smooth * plain[i];
      branches.insert(1);
    } else {
      branches.insert(2);
    }
    EXPECT_NEAR(llama3[i], expected, 1e-15);
  }
  EXPECT_EQ(branches.size(), 3u);

  // YaRN: the fastest frequencies are kept, the slowest divided, those between monotone.
  const ModelConfig c =
      with("rope_scaling",
           {{"rope_type", "yarn"}, {"factor", 4}, {"original_max_position_embeddings", 4096}});
  const auto yarn = rope_frequencies(c, 128);
  const auto base = rope_frequencies(with("rope_scaling", nullptr), 128);
  // Index of a frequency with n turns in 4096 positions: 64 ln(4096 / (2 pi n)) / ln(10000).
  const int low = 20, high = 46;
  for (int i = 0; i < 64; ++i) {
    const double ramp = std::min(1.0, std::max(0.0, (i - low) / static_cast<double>(high - low)));
    EXPECT_NEAR(yarn[i] / base[i], 1 - ramp + ramp / 4, 1e-12) << i;
  }
  EXPECT_DOUBLE_EQ(rope_magnitude(c), 0.1 * std::log(4.0) + 1);
  EXPECT_EQ(rope_magnitude(with("rope_scaling", nullptr)), 1.0);
}

TEST(ModelConfig, UnknownKeysAreCarriedInOrder) {
  json::object object = minimal("hypenet");
  object["zeta"] = json::object{{"b", 1}, {"a", 2}};
  object["auto_map"] = "x";
  const ModelConfig c = parse(object);
  ASSERT_EQ(c.other.size(), 2u);
  EXPECT_EQ(c.other.begin()->key(), "zeta");
  EXPECT_EQ(model_config_to_json(c).at("zeta"), object.at("zeta"));
}

TEST(ModelConfig, AHybridIsNotWrittenAsQwen3) {
  ModelConfig c = parse(minimal("qwen3"));
  EXPECT_EQ(parse(model_config_to_json(c)), c);
  c.mixer_types[0] = MixerType::kLightning;
  EXPECT_THROW(model_config_to_json(c), Error);
  c.model_type = ModelType::kHypenet;
  EXPECT_EQ(parse(model_config_to_json(c)), c);
}

// Equal but for the kinds of numbers (1000000 is written as 1000000.0).
bool same_value(const json::value& a, const json::value& b) {
  if (a.is_number() && b.is_number()) return a.to_number<double>() == b.to_number<double>();
  return a == b;
}

void expect_written_back(const fs::path& file) {
  const json::object original = read_json(file).as_object();
  const ModelConfig c = read_model_config(file.parent_path());
  const json::object written = model_config_to_json(c);
  EXPECT_EQ(parse(written), c) << file;
  // And through text.
  EXPECT_EQ(parse(parse_json(format_json(written), "t").as_object()), c) << file;
  for (const auto& [key, value] : original) {
    // lightning_attn becomes lightning-attn, hype becomes hype 362.
    if (key == "mixer_types" || value == "hype") continue;
    ASSERT_TRUE(written.contains(key)) << file << " " << key;
    EXPECT_TRUE(same_value(written.at(key), value)) << file << " " << key;
  }
}

TEST(ModelConfigGolden, EveryConfigIsReadAndWrittenBack) {
  for (const fs::path& root : test::golden_roots()) {
    int read = 0;
    for (const auto& item : fs::recursive_directory_iterator(root)) {
      if (item.path().filename() != "config.json") continue;
      expect_written_back(item.path());
      ++read;
    }
    EXPECT_GE(read, 20) << root;
  }
}

TEST(RopeGolden, FrequenciesOfTheFixture) {
  const json::value rows =
      read_json(test::source_dir() / "tests/golden/fixtures/rope/expected.json");
  for (const json::value& row : rows.as_array()) {
    ModelConfig c;
    c.rope_theta = row.at("theta").to_number<double>();
    const auto frequencies = rope_frequencies(c, row.at("head_dim").as_int64());
    const json::array& expected = row.at("inv_freq_fp32").as_array();
    ASSERT_EQ(frequencies.size(), expected.size());
    for (size_t i = 0; i < frequencies.size(); ++i) {
      // The fixture's power and division were rounded to fp32 on the way.
      const double e = expected[i].to_number<double>();
      EXPECT_NEAR(frequencies[i], e, 4 * 0x1p-24 * e);
    }
  }
}

TEST(SideFiles, AreCarriedByteForByte) {
  const test::Folder root;
  const fs::path from = root / "from", to = root / "deep" / "to";
  fs::create_directories(from / "folder");
  fs::create_directories(from / "additional_chat_templates");
  write_file(from / "additional_chat_templates" / "tool_use.jinja", "{{ tools }}");
  for (const char* name : {"config.json", "model.safetensors", "model.safetensors.index.json",
                           "README.md", "pytorch_model.bin", "tokenizer.json", "vocab.txt"})
    write_file(from / name, std::string("\0\r\n\xff", 4) + name);
  fs::create_symlink(from / "tokenizer.json", from / "generation_config.json");
  copy_side_files(from, to);
  std::set<std::string> names;
  for (const auto& item : fs::directory_iterator(to)) names.insert(item.path().filename());
  EXPECT_THAT(names, ElementsAre("additional_chat_templates", "generation_config.json",
                                 "tokenizer.json", "vocab.txt"));
  EXPECT_EQ(read_file(to / "additional_chat_templates" / "tool_use.jinja"), "{{ tools }}");
  EXPECT_EQ(read_file(to / "vocab.txt"), read_file(from / "vocab.txt"));
  EXPECT_FALSE(fs::is_symlink(to / "generation_config.json"));
  copy_side_files(from, from);
  EXPECT_THROW(copy_side_files(root / "absent", to), Error);
}

}  // namespace
}  // namespace halo
