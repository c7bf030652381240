// Model directories as other programs write them: the same model, or an Error that says why not.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstring>
#include <functional>
#include <limits>
#include <map>

#include "ATen/ATen.h"
#include "halo/base/files.h"
#include "halo/formats/weight_names.h"
#include "halo/model/model_testing.h"
#include "tests/testing.h"

namespace halo {
namespace {

using testing::AllOf;
using testing::HasSubstr;

ModelConfig config_of(bool tied) {
  ModelConfig config = test::transformer_config();
  config.tie_word_embeddings = tied;
  return config;
}

using Tensors = std::map<std::string, at::Tensor>;

class LoadModel : public testing::Test {
 protected:
  LoadModel() {
    at::NoGradGuard no_grad;
    for (const ParameterSpec& spec : decoder_parameters(config_of(true))) {
      at::Generator generator = at::make_generator<at::CPUGeneratorImpl>(tensors_.size());
      tensors_[spec.name] = at::empty(spec.shape).normal_(0, 0.1, generator);
    }
  }

  // The folder with the tensors that `change` leaves.
  const std::filesystem::path& write(
      const std::function<void(Tensors&)>& change = [](Tensors&) {}, bool tied = true) const {
    Tensors tensors = tensors_;
    change(tensors);
    std::vector<TensorView> views;
    for (const auto& [name, tensor] : tensors) views.push_back(to_view(name, tensor));
    write_safetensors(folder_ / "model.safetensors", views);
    write_model_config(folder_.path(), config_of(tied), DType::kF32);
    return folder_.path();
  }

  static Model load(const std::filesystem::path& folder,
                    ParameterStore::Use use = ParameterStore::Use::kFrozen) {
    return load_model(folder, use, at::kFloat, at::kCPU);
  }

  // Everything is as in `tensors_`, the head is the embedding; in both ways of loading.
  void expect_the_same(const std::filesystem::path& folder) const {
    for (const auto use : {ParameterStore::Use::kFrozen, ParameterStore::Use::kTrained}) {
      const Model model = load(folder, use);
      EXPECT_TRUE(model.config.tie_word_embeddings);
      EXPECT_EQ(model.store->specs().size(), tensors_.size());
      for (const auto& [name, tensor] : tensors_)
        EXPECT_TRUE(at::equal(model.store->value(name), tensor)) << name;
    }
  }

  std::string error_of(const std::function<void(Tensors&)>& change, bool tied = true) const {
    const std::filesystem::path& folder = write(change, tied);
    const std::string error = test::error_of([&] { load(folder); });
    EXPECT_EQ(test::error_of([&] { load(folder, ParameterStore::Use::kTrained); }), error);
    return error;
  }

  Tensors tensors_;
  const test::Folder folder_;
};

const std::string kEmbedding(kEmbeddingName), kHead(kHeadName);

TEST_F(LoadModel, NamesWithoutTheirPrefix) {
  expect_the_same(write([](Tensors& tensors) {
    Tensors renamed;
    for (auto& [name, tensor] : tensors) renamed[name.substr(std::strlen("model."))] = tensor;
    tensors = renamed;
  }));
  EXPECT_THAT(error_of([](Tensors& tensors) {
                Tensors renamed;
                for (auto& [name, tensor] : tensors) renamed["other." + name] = tensor;
                tensors = renamed;
              }),
              HasSubstr("'other.model.embed_tokens.weight' belongs to nothing"));
}

TEST_F(LoadModel, ConstantBuffers) {
  expect_the_same(write([](Tensors& tensors) {
    tensors["model.rotary_emb.inv_freq"] = at::ones({4});
    tensors["model.layers.1.self_attn.rotary_emb.inv_freq"] = at::ones({4});
    tensors["model.layers.1.self_attn.rotary_emb.cos_cached"] = at::ones({1, 1, 64, 8});
    tensors["model.layers.0.self_attn.masked_bias"] = at::tensor(-1e9);
    tensors["model.layers.0.self_attn.bias"] = at::ones({1, 1, 64, 64}).to(at::kBool);
    tensors["model.position_ids"] = at::arange(64);
  }));
  EXPECT_THAT(error_of([](Tensors& t) { t["model.rotary_emb.other"] = at::ones({4}); }),
              HasSubstr("'model.rotary_emb.other' belongs to nothing"));
}

TEST_F(LoadModel, TiedHeads) {
  expect_the_same(write([](Tensors& t) { t[kHead] = t.at(kEmbedding).clone(); }));
  // Stored once, under the other name.
  expect_the_same(write([](Tensors& t) {
    t[kHead] = t.at(kEmbedding);
    t.erase(kEmbedding);
  }));
  const Model own = load(write([](Tensors& t) { t[kHead] = 2 * t.at(kEmbedding) + 0.01; }));
  EXPECT_FALSE(own.config.tie_word_embeddings);
  EXPECT_TRUE(at::equal(own.weights.head.value, 2 * tensors_.at(kEmbedding) + 0.01));
  EXPECT_TRUE(at::equal(own.weights.embedding.value, tensors_.at(kEmbedding)));
  EXPECT_THAT(error_of([](Tensors&) {}, false), HasSubstr("'lm_head.weight' [61, 32] is missing"));
}

// Headers of any length, so that the values lie anywhere.
TEST_F(LoadModel, ValuesThatAreNotAligned) {
  for (int i = 0; i < 4; ++i) {
    write();
    const std::string file = read_file(folder_ / "model.safetensors");
    uint64_t length;
    std::memcpy(&length, file.data(), sizeof(length));
    const uint64_t longer = length + i;
    write_file(folder_ / "model.safetensors",
               std::string(reinterpret_cast<const char*>(&longer), sizeof(longer)) +
                   file.substr(8, length) + std::string(i, ' ') + file.substr(8 + length));
    expect_the_same(folder_.path());
  }
}

TEST_F(LoadModel, DamagedValuesAreRefusedByName) {
  const std::string q = "model.layers.1.self_attn.q_proj.weight";
  EXPECT_THAT(error_of([&](Tensors& t) {
                t[q] = t.at(q).clone();
                t[q][3][5] = std::numeric_limits<float>::quiet_NaN();
              }),
              AllOf(HasSubstr(folder_.path().string()), HasSubstr("'" + q + "' has 1 value"),
                    HasSubstr("[3, 5]")));
  EXPECT_THAT(error_of([&](Tensors& t) { t[q] = at::zeros_like(t.at(q)); }),
              HasSubstr("'" + q + "' is zero throughout"));
}

// Of what `halo quantize` writes (exchange/quantize_test.cc), what is missing or wrong.
TEST_F(LoadModel, Int8IsCheckedAsStrictly) {
  ModelConfig config = config_of(false);
  config.int8_weights = true;
  const std::string q = "model.layers.1.self_attn.q_proj.weight", scale = q + "_scale";
  const auto load_changed = [&](const std::function<void(Tensors&)>& change) {
    write(
        [&](Tensors& t) {
          t[kHead] = t.at(kEmbedding);
          for (const ParameterSpec& spec : decoder_parameters(config)) {
            if (!spec.int8) continue;
            t[spec.name] = (t.at(spec.name) * 100).round().clamp(-127, 127).to(at::kChar);
            t[spec.name + "_scale"] = at::full({spec.shape[0]}, 0.01);
          }
          change(t);
        },
        false);
    write_model_config(folder_.path(), config, DType::kF32);
    return load(folder_.path());
  };
  const auto error = [&](const std::function<void(Tensors&)>& change) {
    return test::error_of([&] { load_changed(change); });
  };
  const Model model = load_changed([](Tensors&) {});
  const Weight& qkv = std::get<AttentionWeights>(model.weights.layers[1].mixer).qkvg;
  EXPECT_EQ(qkv.value.scalar_type(), at::kChar);
  EXPECT_EQ(qkv.scale.sizes(), at::IntArrayRef({qkv.value.size(0)}));
  EXPECT_EQ(model.weights.embedding.value.scalar_type(), at::kFloat);
  EXPECT_FALSE(model.weights.embedding.scale.defined());

  EXPECT_THAT(error([&](Tensors& t) { t.erase(scale); }),
              HasSubstr("'" + scale + "' [32] is missing"));
  EXPECT_THAT(error([&](Tensors& t) {
                t[scale] = at::ones({32, 1});
              }),
              HasSubstr("'" + scale + "' has shape [32, 1]"));
  EXPECT_THAT(error([&](Tensors& t) { t[scale] = t.at(scale).to(at::kInt); }),
              HasSubstr("'" + scale + "' has type I32"));
  EXPECT_THAT(error([&](Tensors& t) {
                t[scale] = t.at(scale).clone();
                t[scale][7] = -1;
              }),
              HasSubstr("'" + scale + "' has scales that are not above 0"));
  EXPECT_THAT(error([&](Tensors& t) { t[q] = t.at(q).to(at::kFloat); }),
              HasSubstr("'" + q + "' has type F32, expected I8"));
  EXPECT_THAT(error([&](Tensors& t) { t[q] = at::zeros_like(t.at(q)); }),
              HasSubstr("'" + q + "' is zero throughout"));
  EXPECT_THAT(error([&](Tensors& t) { t[kEmbedding + "_scale"] = at::ones({61}); }),
              HasSubstr("belongs to nothing"));
  EXPECT_THAT(test::error_of([&] { load(folder_.path(), ParameterStore::Use::kTrained); }),
              HasSubstr("cannot be trained"));
}

}  // namespace
}  // namespace halo
