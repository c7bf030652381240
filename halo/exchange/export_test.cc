#include "halo/exchange/export.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "halo/base/check.h"
#include "halo/base/files.h"
#include "halo/formats/model_config.h"
#include "halo/formats/safetensors.h"
#include "tests/places.h"
#include "tests/testing.h"

namespace halo {
namespace {

namespace fs = std::filesystem;
using ::testing::HasSubstr;

class ExportTest : public ::testing::Test {
 protected:
  ExportTest() {
    fs::create_directories(model_);
    write_json(model_ / "config.json", config_);
    write_file(model_ / "tokenizer.json", "{\"of\": \"the model\"}\n");
    write_file(model_ / "README.md", "of the model");
    write_weights("model.safetensors");
  }

  void write_weights(const std::string& name) const {
    const std::vector<TensorView> tensors = {
        {"model.norm.weight", DType::kBF16, {2}, std::as_bytes(std::span(numbers_))}};
    write_safetensors(model_ / name, tensors);
  }

  std::string error() const {
    return test::error_of([&] { export_model(model_, out_, "card"); });
  }

  json::object exported_config() const { return read_json(out_ / "config.json").as_object(); }

  const std::vector<uint16_t> numbers_ = {0x3f80, 0x4000};
  const json::object config_{{"model_type", "hypenet"},
                             {"vocab_size", 100},
                             {"hidden_size", 64},
                             {"intermediate_size", 128},
                             {"num_hidden_layers", 2},
                             {"num_attention_heads", 4},
                             {"num_key_value_heads", 2},
                             {"eos_token_id", 7},
                             {"attn_logits_scaling", "hype 500"},
                             {"mixer_types", {"lightning_attn", "attn"}},
                             {"of_the_teacher", "kept"}};
  const test::Folder root_;
  const fs::path model_ = root_ / "model", out_ = root_ / "out";
};

TEST_F(ExportTest, CarriesWeightsAndSideFilesByteForByte) {
  export_model(model_, out_, "a card\n");
  for (const char* name : {"model.safetensors", "tokenizer.json"})
    EXPECT_EQ(read_file(out_ / name), read_file(model_ / name)) << name;
  EXPECT_EQ(read_file(out_ / "README.md"), "a card\n");
  EXPECT_FALSE(fs::exists(out_.string() + ".tmp"));
}

// AutoTokenizer finds its class there; a model's own file says more and stays.
TEST_F(ExportTest, NamesTheTokenizersClassWhereNothingDoes) {
  export_model(model_, out_, "");
  EXPECT_EQ(read_json(out_ / "tokenizer_config.json").at("tokenizer_class"),
            "PreTrainedTokenizerFast");
  write_file(model_ / "tokenizer_config.json", "{}\n");
  fs::remove_all(out_);
  export_model(model_, out_, "");
  EXPECT_EQ(read_file(out_ / "tokenizer_config.json"), "{}\n");
}

TEST_F(ExportTest, CarriesThePythonFilesOfTheTree) {
  export_model(model_, out_, "");
  for (const char* name : {"configuration_hypenet.py", "modeling_hypenet.py"})
    EXPECT_EQ(read_file(out_ / name), read_file(test::source_dir() / "halo/exchange/hf" / name))
        << name;
}

TEST_F(ExportTest, ConfigurationStaysEqualAndNamesTheCode) {
  export_model(model_, out_, "");
  ModelConfig before = read_model_config(model_), after = read_model_config(out_);
  EXPECT_EQ(after.other.at("of_the_teacher"), "kept");
  before.other = after.other = {};
  EXPECT_EQ(after, before);
  const json::object config = exported_config();
  EXPECT_EQ(config.at("auto_map").at("AutoModelForCausalLM"),
            "modeling_hypenet.HypeNetForCausalLM");
  EXPECT_EQ(config.at("mixer_types"), (json::array{"lightning-attn", "attn"}));
  EXPECT_EQ(config.at("torch_dtype"), "bfloat16");
  EXPECT_EQ(config.at("lightning_use_short_conv"), false);
}

TEST_F(ExportTest, GenerationConfigIsMadeOrCarried) {
  export_model(model_, out_, "");
  EXPECT_EQ(read_json(out_ / "generation_config.json"), (json::object{{"eos_token_id", 7}}));
  fs::remove_all(out_);
  write_file(model_ / "generation_config.json", "{ \"top_k\": 20 }");
  export_model(model_, out_, "");
  EXPECT_EQ(read_file(out_ / "generation_config.json"), "{ \"top_k\": 20 }");
}

TEST_F(ExportTest, CarriesShardsWithTheirIndex) {
  fs::rename(model_ / "model.safetensors", model_ / "model-00001-of-00001.safetensors");
  write_json(
      model_ / "model.safetensors.index.json",
      json::object{{"weight_map", {{"model.norm.weight", "model-00001-of-00001.safetensors"}}}});
  export_model(model_, fs::path(out_.string() + "/"), "");
  EXPECT_NE(WeightFiles(out_).find("model.norm.weight"), nullptr);
  EXPECT_FALSE(fs::exists(out_ / "model.safetensors"));
}

TEST_F(ExportTest, RefusesLearnedDecaysByName) {
  json::object config = config_;
  config["lightning_learned_decay"] = true;
  write_json(model_ / "config.json", config);
  EXPECT_THAT(error(), HasSubstr("lightning_learned_decay"));
  EXPECT_FALSE(fs::exists(out_));
}

TEST_F(ExportTest, AnExportExportsToTheSameFiles) {
  export_model(model_, out_, "card");
  const fs::path again = root_ / "again";
  export_model(out_, again, "card");
  size_t files = 0;
  for (const auto& entry : fs::directory_iterator(out_)) {
    ++files;
    EXPECT_EQ(read_file(again / entry.path().filename()), read_file(entry.path())) << entry.path();
  }
  EXPECT_EQ(files, 8);
}

TEST_F(ExportTest, RefusesAPlainTransformerAndAFullFolder) {
  fs::create_directories(out_);
  EXPECT_EQ(error(), "no error");  // empty
  EXPECT_THAT(error(), HasSubstr("is not empty"));
  fs::remove_all(out_);
  json::object plain = config_;
  for (const char* key : {"attn_logits_scaling", "mixer_types"}) plain.erase(key);
  plain["model_type"] = "qwen3";
  write_json(model_ / "config.json", plain);
  EXPECT_THAT(error(), HasSubstr("is no hybrid"));
  EXPECT_FALSE(fs::exists(out_));
}

// configs/model: the sizes that the paper's authors published (hypenet.md 1.3).
TEST(PublishedConfigs, KeepTheStatedBytesOfASequence) {
  struct Size {
    const char* name;
    int64_t kv_bytes_per_token, state_bytes;
    std::vector<int64_t> attention;
  };
  for (const Size& size :
       {Size{"hypenet-2b", 28'672, 22'020'096, {2, 3, 6, 8, 9, 21, 25}},
        Size{"hypenet-5b", 36'864, 56'623'104, {0, 1, 7, 14, 15, 22, 24, 31, 33}},
        Size{"hypenet-9b", 36'864, 56'623'104, {1, 2, 4, 6, 7, 10, 24, 33, 34}}}) {
    const fs::path path = test::source_dir() / "configs/model" / (std::string(size.name) + ".json");
    const ModelConfig config = parse_model_config(read_json(path).as_object(), path.string());
    EXPECT_EQ(config.kv_bytes_per_token(), size.kv_bytes_per_token) << size.name;
    EXPECT_EQ(config.state_bytes(), size.state_bytes) << size.name;
    EXPECT_EQ(config.attention_layers(), size.attention) << size.name;
    EXPECT_FALSE(config.attn_use_rope) << size.name;
    EXPECT_EQ(config.lightning_kv_heads, config.num_heads) << size.name;
  }
}

}  // namespace
}  // namespace halo
