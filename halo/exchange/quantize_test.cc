#include "halo/exchange/quantize.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "ATen/ATen.h"
#include "halo/base/files.h"
#include "halo/exchange/inspect.h"
#include "halo/formats/weight_names.h"
#include "halo/model/model_testing.h"
#include "tests/testing.h"

namespace halo {
namespace {

namespace fs = std::filesystem;
using testing::HasSubstr;

class QuantizeTest : public testing::Test {
 protected:
  void write(const ModelConfig& config, DType dtype) {
    ParameterStore store(decoder_parameters(config), ParameterStore::Use::kFrozen, at::kFloat,
                         at::kCPU);
    test::fill_random(store, 1, /*unit_embedding=*/true);
    // A row of zeros, and an output gate that starts at zero, as students have it.
    store.value("model.layers.1.mlp.up_proj.weight")[3].zero_();
    if (store.contains(kGate)) store.value(kGate).zero_();
    save_model(model_, config, store, dtype);
    write_file(model_ / "tokenizer.json", "{}");
  }
  static Model load(const fs::path& directory, at::ScalarType compute) {
    return load_model(directory, ParameterStore::Use::kFrozen, compute, at::kCPU);
  }

  static constexpr const char* kGate = "model.layers.1.self_attn.o_gate.weight";
  const test::Folder root_;
  const fs::path model_ = root_ / "model", out_ = root_ / "int8";
};

TEST_F(QuantizeTest, RowsAreRoundedToTheirLargestOver127) {
  for (const ModelConfig& config : {test::transformer_config(), test::hybrid_config()}) {
    write(config, DType::kBF16);
    const json::object done = quantize_model({model_, out_});
    const Model before = load(model_, at::kFloat), after = load(out_, at::kFloat);
    EXPECT_TRUE(after.config.int8_weights);
    EXPECT_FALSE(after.config.tie_word_embeddings);
    EXPECT_EQ(read_file(out_ / "tokenizer.json"), "{}");
    EXPECT_TRUE(inspect_model(out_).at("misfits").as_array().empty());
    int64_t matrices = 0;
    for (const ParameterSpec& spec : after.store->specs()) {
      const bool is_new = !before.store->contains(spec.name);
      const at::Tensor was = before.store->value(is_new ? std::string(kEmbeddingName) : spec.name);
      const at::Tensor is = after.store->value(spec.name), scale = after.store->scale(spec.name);
      EXPECT_EQ(spec.int8, spec.shape.size() == 2 && spec.name != kEmbeddingName) << spec.name;
      EXPECT_EQ(scale.defined(), spec.int8) << spec.name;
      if (!spec.int8) {
        EXPECT_TRUE(at::equal(is, was)) << spec.name;
        continue;
      }
      ++matrices;
      const at::Tensor most = was.abs().amax(1), of_zeros = most.eq(0);
      EXPECT_TRUE(at::equal(scale, at::where(of_zeros, at::ones_like(most), most / 127)));
      EXPECT_TRUE(at::equal(is.abs().amax(1), at::where(of_zeros, 0, 127).to(at::kChar)));
      EXPECT_LE(((is * scale.unsqueeze(1) - was).abs() / scale.unsqueeze(1)).max().item<float>(),
                0.5F + 1e-4F)
          << spec.name;
    }
    EXPECT_EQ(done.at("matrices"), matrices);
    EXPECT_GT(done.at("relative_error").to_number<double>(), 0.001);
    EXPECT_LT(done.at("relative_error").to_number<double>(), 0.02);
    fs::remove_all(out_);
  }
}

// Where they lie in the file, q, k, v and the gate as one.
TEST_F(QuantizeTest, MatricesAreUsedInTheirFile) {
  write(test::hybrid_config(), DType::kBF16);
  quantize_model({model_, out_});
  const Model model = load(out_, at::kBFloat16);
  EXPECT_EQ(model.store->compute().numel(), 0);
  const Weight& qkvg = std::get<AttentionWeights>(model.weights.layers[1].mixer).qkvg;
  EXPECT_EQ(qkvg.value.data_ptr(),
            model.store->value("model.layers.1.self_attn.q_proj.weight").data_ptr());
  EXPECT_EQ(qkvg.scale.numel(), qkvg.value.size(0));
}

TEST_F(QuantizeTest, PredictsNearlyTheSame) {
  write(test::hybrid_config(), DType::kF32);
  quantize_model({model_, out_});
  const std::vector<int64_t> tokens = test::random_tokens(60, 5);
  const Model before = load(model_, at::kFloat), after = load(out_, at::kFloat);
  const auto logits_of = [&](const Model& model, Kernels kernels) {
    return logits(model.weights, test::plain_decode(model.weights, tokens, kernels), kernels);
  };
  const at::Tensor want = logits_of(before, Kernels::kReference);
  for (const auto kernels : {Kernels::kReference, Kernels::kFast})
    EXPECT_LT((logits_of(after, kernels) - want).square().mean().sqrt().item<float>(),
              0.03 * want.square().mean().sqrt().item<float>());
}

TEST_F(QuantizeTest, Refusals) {
  write(test::hybrid_config(), DType::kBF16);
  quantize_model({model_, out_});
  EXPECT_THAT(test::error_of([&] {
                quantize_model({out_, root_ / "again"});
              }),
              HasSubstr("int8 already"));
  EXPECT_FALSE(fs::exists(root_ / "again"));
  EXPECT_NE(test::error_of([&] { quantize_model({model_, out_}); }), "no error");
  const Model model = load(out_, at::kFloat);
  EXPECT_THAT(
      test::error_of([&] { save_model(root_ / "s", model.config, *model.store, DType::kBF16); }),
      HasSubstr("take the one it was made of"));
}

}  // namespace
}  // namespace halo
