#include "halo/stages/transfer.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "halo/model/model_testing.h"
#include "tests/testing.h"

namespace halo {
namespace {

using test::error_of;
using test::random_tokens;
using testing::HasSubstr;

// Three layers, 4 query heads on 2 key/value heads, biases everywhere.
Model make_teacher() {
  Model teacher;
  teacher.config = test::transformer_config();
  teacher.config.attention_bias = true;
  teacher.config.attention_output_bias = true;
  teacher.store = std::make_shared<ParameterStore>(
      decoder_parameters(teacher.config), ParameterStore::Use::kFrozen, at::kFloat, at::kCPU);
  at::Generator generator = at::make_generator<at::CPUGeneratorImpl>(3);
  for (const ParameterSpec& spec : teacher.store->specs()) {
    at::Tensor value = teacher.store->value(spec.name).normal_(0, 1, generator);
    if (spec.shape.size() == 2) value.div_(std::sqrt(static_cast<double>(spec.shape[1])));
    if (spec.name.find("norm") != std::string::npos) value.mul_(0.1).add_(1);
  }
  teacher.weights = bind_decoder(teacher.config, *teacher.store);
  return teacher;
}

std::vector<MixerType> all(MixerType type) {
  return std::vector<MixerType>(3, type);
}

Model make_student(const Model& teacher, const ModelConfig& config, TransferInit init,
                   uint64_t seed = 0) {
  Model student;
  student.config = config;
  student.store = std::make_shared<ParameterStore>(
      decoder_parameters(config), ParameterStore::Use::kFrozen, at::kFloat, at::kCPU);
  TransferArgs args{init, seed, {}};
  const auto tokens = random_tokens(256, 5);
  args.calibration.push_back(make_batch(at::tensor(tokens, at::kLong), {0, 100, 256}, at::kCPU));
  transfer(teacher, config, *student.store, args);
  student.weights = bind_decoder(config, *student.store);
  return student;
}

// A gate of zeros halves exactly and o_proj is doubled exactly: with the teacher's rotation the
// student is the teacher, bit for bit.
TEST(Transfer, IdentityIsTheTeacherAsLongAsItRotates) {
  const Model teacher = make_teacher();
  ModelConfig config = student_config(teacher.config, all(MixerType::kAttention));
  EXPECT_FALSE(config.attn_use_rope);
  config.attn_use_rope = true;
  const Model student = make_student(teacher, config, TransferInit::kIdentity);
  const auto tokens = random_tokens(90, 1);
  const auto decode_with = [&](const Model& model) {
    return test::plain_decode(model.weights, tokens, Kernels::kReference);
  };
  EXPECT_TRUE(at::equal(decode_with(student), decode_with(teacher)));
}

TEST(Transfer, HeadsAndBiasesAreExpandedConsecutively) {
  const Model teacher = make_teacher();
  const ModelConfig config = student_config(teacher.config, all(MixerType::kLightning));
  for (TransferInit init : {TransferInit::kMatch, TransferInit::kIdentity, TransferInit::kRandom}) {
    const Model student = make_student(teacher, config, init);
    EXPECT_EQ(transfer_error(teacher, config, *student.store, init), 0);
    const std::string p = "model.layers.1.self_attn.";
    const int64_t d = teacher.config.head_dim;
    for (const char* name : {"k_proj.weight", "v_proj.weight", "k_proj.bias", "v_proj.bias"}) {
      const at::Tensor mine = student.store->value(p + name), its = teacher.store->value(p + name);
      ASSERT_EQ(mine.size(0), 4 * d) << name;
      for (int64_t head = 0; head < 4; ++head) {
        EXPECT_TRUE(at::equal(mine.narrow(0, head * d, d), its.narrow(0, head / 2 * d, d)))
            << name << " head " << head;
      }
    }
    for (const char* name :
         {"q_proj.weight", "q_proj.bias", "o_proj.bias", "q_norm.weight", "k_norm.weight"}) {
      EXPECT_TRUE(at::equal(student.store->value(p + name), teacher.store->value(p + name)))
          << name;
    }
    EXPECT_EQ(student.store->value(p + "z_proj.bias").abs().max().item<float>(), 0);
    const double factor = init == TransferInit::kRandom ? 1 : 2;
    EXPECT_TRUE(at::equal(student.store->value(p + "o_proj.weight"),
                          teacher.store->value(p + "o_proj.weight") * factor));
  }
}

// Learned decays begin as the fixed ones: the same student, bit for bit.
TEST(Transfer, LearnedDecaysBeginFixed) {
  const Model teacher = make_teacher();
  const ModelConfig fixed = student_config(teacher.config, all(MixerType::kLightning)),
                    learned = student_config(teacher.config, all(MixerType::kLightning), true);
  const auto tokens = random_tokens(90, 1);
  for (TransferInit init : {TransferInit::kMatch, TransferInit::kRandom}) {
    const Model a = make_student(teacher, fixed, init), b = make_student(teacher, learned, init);
    EXPECT_EQ(transfer_error(teacher, learned, *b.store, init), 0);
    const std::string p = "model.layers.1.self_attn.decay_proj.";
    EXPECT_EQ(b.store->value(p + "weight").sizes(), (std::vector<int64_t>{4, 32}));
    EXPECT_EQ(b.store->value(p + "weight").abs().max().item<float>(), 0);
    EXPECT_EQ(b.store->value(p + "bias").abs().max().item<float>(), 0);
    EXPECT_TRUE(at::equal(test::plain_decode(a.weights, tokens, Kernels::kReference),
                          test::plain_decode(b.weights, tokens, Kernels::kReference)));
  }
}

TEST(Transfer, PaperDrawsGatesFromTheSeed) {
  const Model teacher = make_teacher();
  const ModelConfig config = student_config(
      teacher.config, {MixerType::kLightning, MixerType::kAttention, MixerType::kLightning});
  const auto value = [&](uint64_t seed, const std::string& name) {
    return make_student(teacher, config, TransferInit::kRandom, seed)
        .store->value("model.layers." + name + ".weight")
        .clone();
  };
  const at::Tensor z = value(1, "0.self_attn.z_proj"), gate = value(1, "1.self_attn.o_gate");
  const double bound = 1 / std::sqrt(32.0);
  EXPECT_LE(z.abs().max().item<double>(), bound);
  EXPECT_NEAR(z.std().item<double>(), bound / std::sqrt(3.0), 0.1 * bound);
  EXPECT_NEAR(gate.std().item<double>(), 0.02, 0.002);
  EXPECT_TRUE(at::equal(z, value(1, "0.self_attn.z_proj")));
  EXPECT_FALSE(at::equal(z, value(2, "0.self_attn.z_proj")));
  EXPECT_FALSE(at::equal(z, value(1, "2.self_attn.z_proj")));
  EXPECT_TRUE(at::equal(value(1, "0.self_attn.o_norm"), at::ones({32})));
}

// `match`: o_norm is the RMS of each channel of the teacher's attention output; so the mixer's
// output has the teacher's power. `lsq`: no other o_proj is nearer on the calibration tokens.
TEST(Transfer, MatchAndLsqFitTheTeacherOnTheirTokens) {
  at::NoGradGuard no_grad;
  const Model teacher = make_teacher();
  const ModelConfig config = student_config(teacher.config, all(MixerType::kLightning));
  const Batch batch =
      make_batch(at::tensor(random_tokens(256, 5), at::kLong), {0, 100, 256}, at::kCPU);
  const auto errors = [&](const Model& student) {
    std::vector<double> out;
    decode_visiting(
        teacher.weights, batch, [&](int64_t layer, const at::Tensor& x, const at::Tensor& target) {
          const at::Tensor got = run_mixer(student.weights.layers[layer].mixer,
                                           teacher.config.rms_norm_eps, x, batch, layer);
          out.push_back((got - target).square().mean().item<double>());
        });
    return out;
  };
  const Model match = make_student(teacher, config, TransferInit::kMatch);
  decode_visiting(
      teacher.weights, batch, [&](int64_t layer, const at::Tensor& x, const at::Tensor&) {
        const at::Tensor heads = mixer_heads(teacher.weights.layers[layer].mixer,
                                             teacher.config.rms_norm_eps, x, batch, layer);
        const at::Tensor rms = heads.square().mean(0).sqrt();
        const at::Tensor norm =
            match.store->value(fmt::format("model.layers.{}.self_attn.o_norm.weight", layer));
        EXPECT_TRUE(at::allclose(norm, rms, 1e-5, 1e-7)) << layer;
      });
  const Model lsq = make_student(teacher, config, TransferInit::kLsq);
  const auto match_errors = errors(match), best = errors(lsq);
  for (int64_t layer = 0; layer < 3; ++layer) {
    EXPECT_LT(best[layer], match_errors[layer]) << layer;
    at::Tensor o_proj =
        lsq.store->value(fmt::format("model.layers.{}.self_attn.o_proj.weight", layer));
    const at::Tensor found = o_proj.clone();
    for (uint64_t seed = 0; seed < 4; ++seed) {
      at::Generator generator = at::make_generator<at::CPUGeneratorImpl>(seed);
      o_proj.copy_(found + at::empty_like(found).normal_(0, 1e-2, generator));
      EXPECT_GT(errors(lsq)[layer], best[layer]) << layer;
    }
    o_proj.copy_(found);
  }
}

// The closed forms of `calibrated`: without gates each head has nearly the teacher's share of the
// power, with them nearly its power at each token; what `lsq` does not look at.
TEST(Transfer, CalibratedHasTheTeachersPowerByHeadAndToken) {
  at::NoGradGuard no_grad;
  const Model teacher = make_teacher();
  const ModelConfig config = student_config(teacher.config, all(MixerType::kLightning));
  const Batch batch =
      make_batch(at::tensor(random_tokens(256, 5), at::kLong), {0, 100, 256}, at::kCPU);
  struct Misfit {
    std::vector<double> of_heads, of_tokens;  // by layer, nats of power
  };
  const auto misfit_of = [&](TransferInit init) {
    const Model student = make_student(teacher, config, init);
    EXPECT_EQ(transfer_error(teacher, config, *student.store, init), 0);
    Misfit misfit;
    decode_visiting(
        teacher.weights, batch, [&](int64_t layer, const at::Tensor& x, const at::Tensor&) {
          const double eps = teacher.config.rms_norm_eps;
          const auto power = [&](const Mixer& of) {  // [N, H]
            return mixer_heads(of, eps, x, batch, layer).view({-1, 4, 8}).square().sum(2);
          };
          const Mixer& mine = student.weights.layers[layer].mixer;
          const at::Tensor its = power(teacher.weights.layers[layer].mixer);
          Mixer open = mine;
          auto& w = std::get<LightningWeights>(open);
          w.o_norm.value = at::ones_like(w.o_norm.value);
          w.qkvz.value = w.qkvz.value.clone();
          w.qkvz.value.narrow(0, 3 * 32, 32).zero_();
          const at::Tensor heads = power(open).sum(0), its_heads = its.sum(0);
          const at::Tensor shares = heads / heads.sum() / (its_heads / its_heads.sum());
          misfit.of_heads.push_back(shares.log().abs().max().item<double>());
          const at::Tensor tokens = (4 * power(mine) / its).log();
          misfit.of_tokens.push_back(tokens.square().mean().sqrt().item<double>());
        });
    return misfit;
  };
  const Misfit lsq = misfit_of(TransferInit::kLsq),
               calibrated = misfit_of(TransferInit::kCalibrated);
  for (int64_t layer = 0; layer < 3; ++layer) {
    EXPECT_LT(calibrated.of_heads[layer], 0.7 * lsq.of_heads[layer]) << layer;
    EXPECT_LT(calibrated.of_tokens[layer], lsq.of_tokens[layer]) << layer;
  }
}

TEST(Transfer, RefusesTeachersItDoesNotCover) {
  ModelConfig teacher = test::transformer_config();
  const auto error = [&] {
    return error_of([&] { student_config(teacher, all(MixerType::kLightning)); });
  };
  EXPECT_EQ(error(), "no error");
  teacher.attn_use_rope = false;
  EXPECT_THAT(error(), HasSubstr("must use RoPE"));
  teacher = test::hybrid_config();
  EXPECT_THAT(error(), HasSubstr("lightning layers already"));
}

}  // namespace
}  // namespace halo
