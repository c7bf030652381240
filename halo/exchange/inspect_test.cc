#include "halo/exchange/inspect.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "ATen/ATen.h"
#include "halo/base/check.h"
#include "halo/model/model_testing.h"
#include "tests/testing.h"

namespace halo {
namespace {

namespace fs = std::filesystem;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

ModelConfig teacher_config() {
  ModelConfig config = test::transformer_config();
  config.tie_word_embeddings = false;
  return config;
}

ModelConfig student_config() {
  ModelConfig config = test::hybrid_config();
  config.attn_logits_scaling = {};
  return config;
}

ParameterStore random_store(const ModelConfig& config, uint64_t seed) {
  ParameterStore store(decoder_parameters(config), ParameterStore::Use::kFrozen, at::kFloat,
                       at::kCPU);
  at::Generator generator = at::make_generator<at::CPUGeneratorImpl>(seed);
  for (const ParameterSpec& spec : store.specs()) store.value(spec.name).normal_(0, 1, generator);
  return store;
}

class InspectTest : public ::testing::Test {
 protected:
  InspectTest() { save_model(teacher_, teacher_config(), teacher_store_, DType::kF32); }

  // The names of the checks that fired.
  std::vector<std::string> audit(DType dtype = DType::kF32) {
    save_model(student_, config_, store_, dtype);
    findings_ = audit_conversion(student_, teacher_);
    std::vector<std::string> checks;
    for (const Finding& finding : findings_) checks.push_back(finding.check);
    return checks;
  }

  void copy_from_teacher(const std::string& name) {
    store_.value(name).copy_(teacher_store_.value(name));
  }

  const test::Folder root_;
  const fs::path teacher_ = root_ / "teacher", student_ = root_ / "student";
  ParameterStore teacher_store_ = random_store(teacher_config(), 1);
  ModelConfig config_ = student_config();
  ParameterStore store_ = random_store(config_, 2);
  std::vector<Finding> findings_;
};

TEST_F(InspectTest, StatisticsLeaveOutWhatIsNotFinite) {
  const at::Tensor numbers = at::tensor({3.0, -1.0, 2.0, 0.0}, at::kFloat);
  TensorStatistics s = tensor_statistics(to_view("x", numbers));
  EXPECT_EQ(s.numel, 4);
  EXPECT_EQ(s.non_finite, 0);
  EXPECT_EQ(s.min, -1);
  EXPECT_EQ(s.max, 3);
  EXPECT_EQ(s.mean, 1);
  EXPECT_DOUBLE_EQ(s.rms, std::sqrt(3.5));
  const double infinity = std::numeric_limits<double>::infinity();
  const at::Tensor broken =
      at::tensor({NAN, 5.0, infinity, -infinity}, at::kFloat).to(at::kBFloat16);
  s = tensor_statistics(to_view("x", broken));
  EXPECT_EQ(s.non_finite, 3);
  EXPECT_EQ(s.min, 5);
  EXPECT_EQ(s.max, 5);
  s = tensor_statistics(to_view("x", at::tensor({NAN}, at::kFloat).to(at::kHalf)));
  EXPECT_EQ(s.non_finite, 1);
  EXPECT_EQ(s.rms, 0);
}

TEST_F(InspectTest, StatisticsOfMoreThanABlock) {
  at::Tensor numbers = at::zeros({(1 << 20) + 3}, at::kBFloat16);
  numbers[(1 << 20) + 2] = -2;
  numbers[7] = 6;
  const TensorStatistics s = tensor_statistics(to_view("x", numbers));
  EXPECT_EQ(s.min, -2);
  EXPECT_EQ(s.max, 6);
  EXPECT_DOUBLE_EQ(s.mean, 4.0 / double(numbers.numel()));
}

TEST_F(InspectTest, ModelWithItsSizes) {
  save_model(student_, config_, store_, DType::kBF16);
  const json::object found = inspect_model(student_);
  EXPECT_EQ(found.at("mixers"), "-A-");
  EXPECT_EQ(found.at("parameters"), num_parameters(store_.specs()));
  EXPECT_EQ(found.at("weight_bytes"), 2 * num_parameters(store_.specs()));
  EXPECT_EQ(found.at("kv_bytes_per_token_bf16"), 2 * 2 * 8 * 2);
  EXPECT_EQ(found.at("state_bytes_per_sequence"), 2 * 4 * 8 * 8 * 4);
  EXPECT_TRUE(found.at("misfits").as_array().empty());
  EXPECT_EQ(found.at("tensors").as_array().size(), store_.specs().size());
}

TEST_F(InspectTest, MisfitsAreNamed) {
  const at::Tensor numbers = at::zeros({61, 32}), whole = at::zeros({32}, at::kLong);
  const auto found =
      misfits(teacher_config(),
              {to_view("model.embed_tokens.weight", numbers), to_view("model.norm.weight", whole),
               to_view("lm_head.weight", at::zeros({4, 32})), to_view("teacher_model.x", numbers)});
  EXPECT_THAT(found, ::testing::Contains("tensor 'model.norm.weight' is I64, expected a floating "
                                         "type"));
  EXPECT_THAT(found, ::testing::Contains(
                         "tensor 'lm_head.weight' is [4, 32], config.json asks for [61, 32]"));
  EXPECT_THAT(found, ::testing::Contains("tensor 'teacher_model.x' has no place in config.json"));
  EXPECT_THAT(found, ::testing::Contains(
                         "tensor 'model.layers.0.mlp.down_proj.weight' [32, 48] is missing"));
}

TEST_F(InspectTest, TensorsThatModelsMayHaveAreNoMisfits) {
  const at::Tensor matrix = at::ones({61, 32}), buffer = at::ones({4});
  const auto misfits_of = [&](bool tied, std::vector<TensorView> tensors) {
    ModelConfig config = teacher_config();
    config.tie_word_embeddings = tied;
    tensors.push_back(to_view("model.rotary_emb.inv_freq", buffer));
    std::vector<std::string> out;
    for (const std::string& misfit : misfits(config, tensors))
      if (misfit.find("layers.") == misfit.npos && misfit.find("model.norm") == misfit.npos)
        out.push_back(misfit);
    return out;
  };
  const TensorView head = to_view("lm_head.weight", matrix);
  const TensorView embedding = to_view("model.embed_tokens.weight", matrix);
  EXPECT_THAT(misfits_of(true, {head, embedding}), ::testing::IsEmpty());
  EXPECT_THAT(misfits_of(true, {head}), ::testing::IsEmpty());
  EXPECT_THAT(misfits_of(false, {head, embedding}), ::testing::IsEmpty());
  EXPECT_THAT(misfits_of(false, {head}),
              ElementsAre(HasSubstr("embed_tokens.weight' [61, 32] is missing")));
}

TEST_F(InspectTest, DiffSaysWhereAndByHowMuch) {
  save_model(student_, config_, store_, DType::kF32);
  const fs::path other = root_ / "other";
  ModelConfig config = config_;
  config.attn_logits_scaling = {.kind = LogitScale::Kind::kLogPosition, .a = 500};
  config.mixer_types[2] = MixerType::kAttention;
  ParameterStore store = random_store(config, 3);
  for (const ParameterSpec& spec : store.specs()) {
    if (!store_.contains(spec.name)) continue;
    const at::Tensor value = store_.value(spec.name);
    if (value.sizes() == at::IntArrayRef(spec.shape)) store.value(spec.name).copy_(value);
  }
  at::Tensor norm = store.value("model.norm.weight");
  norm[3] += 0.5;
  save_model(other, config, store, DType::kF32);

  const json::object found = diff_models(student_, other);
  EXPECT_EQ(found.at("only_a"), (json::array{"model.layers.2.self_attn.o_norm.weight",
                                             "model.layers.2.self_attn.z_proj.weight"}));
  EXPECT_EQ(found.at("only_b"), (json::array{"model.layers.2.self_attn.o_gate.weight"}));
  const json::array& different = found.at("different").as_array();
  ASSERT_EQ(different.size(), 3);
  EXPECT_EQ(different[0].at("name"), "model.layers.2.self_attn.k_proj.weight");
  EXPECT_EQ(different[0].at("shape"), (json::array{json::array{32, 32}, json::array{16, 32}}));
  const json::object& moved = different[2].as_object();
  EXPECT_EQ(moved.at("name"), "model.norm.weight");
  EXPECT_EQ(moved.at("changed"), 1);
  EXPECT_NEAR(moved.at("max").as_double(), 0.5, 1e-6);
  const double size = store_.value("model.norm.weight").norm().item<double>();
  EXPECT_NEAR(moved.at("relative").as_double(), 0.5 / size, 1e-6);
  EXPECT_EQ(found.at("equal"), int64_t(store_.specs().size()) - 2 - 3);
  const json::object& settings = found.at("config").as_object();
  EXPECT_EQ(settings.at("attn_logits_scaling"), (json::array{nullptr, "hype 500"}));
  EXPECT_EQ(settings.size(), 2);  // and mixer_types
}

TEST_F(InspectTest, DiffOfTypesComparesNumbers) {
  store_.value("model.norm.weight").fill_(1.5);
  save_model(student_, config_, store_, DType::kF32);
  save_model(root_ / "half", config_, store_, DType::kBF16);
  const json::object found = diff_models(student_, root_ / "half");
  EXPECT_EQ(found.at("equal"), 0);
  const json::object& last = found.at("different").as_array().back().as_object();
  EXPECT_EQ(last.at("name"), "model.norm.weight");
  EXPECT_EQ(last.at("changed"), 0);
  EXPECT_EQ(last.at("dtype"), (json::array{"F32", "BF16"}));
  EXPECT_TRUE(diff_models(student_, student_).at("different").as_array().empty());
}

TEST_F(InspectTest, AuditOfATrainedStudentFindsNothing) {
  EXPECT_THAT(audit(), ElementsAre());
}

TEST_F(InspectTest, AuditFindsNormsThatNeverMoved) {
  copy_from_teacher("model.layers.1.self_attn.q_norm.weight");
  copy_from_teacher("model.norm.weight");
  store_.value("model.layers.0.self_attn.o_norm.weight").fill_(1);
  // In bf16, where the teacher's numbers can only be what they round to.
  EXPECT_THAT(audit(DType::kBF16), ElementsAre("norms"));
  EXPECT_THAT(findings_[0].tensors,
              ElementsAre("model.layers.0.self_attn.o_norm.weight",
                          "model.layers.1.self_attn.q_norm.weight", "model.norm.weight"));
  EXPECT_THAT(findings_[0].sentence, HasSubstr("3 of 15 norm weights never moved"));
}

TEST_F(InspectTest, AuditFindsALostHead) {
  store_.value("lm_head.weight").copy_(store_.value("model.embed_tokens.weight"));
  EXPECT_THAT(audit(), ElementsAre("head"));
  EXPECT_THAT(findings_[0].sentence, HasSubstr("overwritten"));
  config_.tie_word_embeddings = true;
  store_ = random_store(config_, 2);
  EXPECT_THAT(audit(), ElementsAre("head"));
  EXPECT_THAT(findings_[0].sentence, HasSubstr("tied to the embedding"));
  // A tied teacher has no head to lose.
  ModelConfig tied = teacher_config();
  tied.tie_word_embeddings = true;
  save_model(teacher_, tied, random_store(tied, 1), DType::kF32);
  EXPECT_THAT(audit(), ElementsAre());
}

TEST_F(InspectTest, AuditFindsKeyValueHeadsThatAreStillCopies) {
  at::Tensor k = store_.value("model.layers.2.self_attn.k_proj.weight").view({2, 2, 8, 32});
  k.select(1, 1).copy_(k.select(1, 0));
  EXPECT_THAT(audit(), ElementsAre("kv-heads"));
  EXPECT_THAT(findings_[0].tensors, ElementsAre("model.layers.2.self_attn.k_proj.weight"));
  EXPECT_THAT(findings_[0].sentence, HasSubstr("1 of 2 lightning layers"));
  k[1][1][3][0] += 1;
  EXPECT_THAT(audit(), ElementsAre());
}

TEST_F(InspectTest, AuditFindsGatesNanAndForeignTeachers) {
  store_.value("model.layers.1.self_attn.o_gate.weight").zero_();
  store_.value("model.norm.weight")[0] = NAN;
  EXPECT_THAT(audit(), ElementsAre("gates", "tensors"));
  EXPECT_THAT(findings_[1].tensors, ElementsAre("model.norm.weight"));
  ModelConfig wide = teacher_config();
  wide.intermediate_size = 64;
  save_model(teacher_, wide, random_store(wide, 1), DType::kF32);
  try {
    audit();
    FAIL() << "no error";
  } catch (const Error& error) {
    EXPECT_THAT(error.what(), HasSubstr("'intermediate_size' is 48, the teacher's 64"));
  }
}

TEST_F(InspectTest, AuditFindsBiasesLeftBehind) {
  ModelConfig biased = teacher_config();
  biased.attention_bias = biased.attention_output_bias = true;
  ParameterStore store = random_store(biased, 1);
  store.value("model.layers.0.self_attn.o_proj.bias").zero_();
  save_model(teacher_, biased, store, DType::kF32);
  EXPECT_THAT(audit(), ElementsAre("biases"));
  EXPECT_EQ(findings_[0].tensors.size(), 11);
  config_.attention_bias = config_.attention_output_bias = true;
  store_ = random_store(config_, 2);
  EXPECT_THAT(audit(), ElementsAre());
}

}  // namespace
}  // namespace halo
