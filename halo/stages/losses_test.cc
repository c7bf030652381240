#include "halo/stages/losses.h"

#include <gtest/gtest.h>

#include <array>

#include "ATen/ATen.h"
#include "halo/kernels/linear_cross_entropy/linear_cross_entropy.h"
#include "halo/kernels/linear_kl/linear_kl.h"
#include "halo/model/fp8_matrices.h"
#include "halo/model/layer_sharing.h"
#include "halo/model/model_testing.h"
#include "halo/runtime/ranks.h"
#include "tests/op_check.h"

namespace halo {
namespace {

// A student to train, a teacher, two sequences in 40 tokens.
struct Setting {
  ModelConfig config = test::hybrid_config();
  std::shared_ptr<const DecoderWeights> teacher = test::random_model(config);
  ParameterStore store{decoder_parameters(config), ParameterStore::Use::kTrained, at::kFloat,
                       at::kCPU};
  DecoderWeights student;
  TrainBatch data;

  Setting() {
    for (const ParameterSpec& spec : store.specs()) {
      store.value(spec.name).copy_(test::random_tensor(spec.shape, 7) * 0.2);
    }
    student = bind_decoder(config, store);
    data.offsets = {0, 13, 40};
    data.tokens = at::tensor(test::random_tokens(40, 1), at::kLong);
    data.targets = at::tensor(test::random_tokens(40, 2), at::kLong);
    data.targets[12] = kIgnoreTarget;
    data.token_weights = at::arange(40, at::kFloat).remainder(3);
  }
};

// data.answer_weight reaches stage 2: each token's KL counts with its weight.
TEST(KlStep, WeighsEachToken) {
  Setting s;
  const Machine machine;
  const Batch batch = to_batch(s.data, machine);
  const at::Tensor kl = token_kl(decode(s.student, batch), s.student.head.value,
                                 decode(*s.teacher, batch), s.teacher->head.value);
  const double want = (kl * s.data.token_weights).sum().item<double>() / 40;
  const double got = kl_step(s.student, *s.teacher, machine)(s.data, 40).item<double>();
  EXPECT_NEAR(got, want, 1e-5 * want);
  EXPECT_GT(std::abs(want - kl.mean().item<double>()), 1e-3 * want);  // weights make a difference
}

// The student's loss moves by what fp8 rounds away, and the teacher itself by nothing.
TEST(KlStep, ATeacherWithProductsInFp8IsNearTheExactOne) {
  Setting s;
  const Machine machine;
  const double exact = kl_step(s.student, *s.teacher, machine)(s.data, 40).item<double>();
  const at::Tensor gradient = s.store.grad().clone();
  s.store.zero_grad();
  const DecoderWeights rounded = with_products(TeacherProducts::kFp8, *s.teacher);
  EXPECT_EQ(rounded.layers[0].down.value.scalar_type(), at::kFloat8_e4m3fn);
  EXPECT_EQ(s.teacher->layers[0].down.value.scalar_type(), at::kFloat);
  const double loss = kl_step(s.student, rounded, machine)(s.data, 40).item<double>();
  EXPECT_NE(loss, exact);
  EXPECT_NEAR(loss, exact, 0.05 * exact);
  test::expect_rms("gradient", s.store.grad(), gradient, 0.2);
  const DecoderWeights same = with_products(TeacherProducts::kComputed, *s.teacher);
  EXPECT_TRUE(same.layers[0].down.value.is_same(s.teacher->layers[0].down.value));
}

// Tokens without a weight are what the student was given.
TEST(OnPolicyStep, HoldsEitherDistributionToTheOtherWhereTokensCount) {
  Setting s;
  const Machine machine;
  s.data.token_weights = at::arange(40, at::kLong).remainder(3).ne(0).to(at::kFloat);
  const Batch batch = to_batch(s.data, machine);
  const auto log_p = [&](const DecoderWeights& weights) {
    return at::log_softmax(at::mm(decode(weights, batch), weights.head.value.t()).to(at::kDouble),
                           1);
  };
  const at::Tensor student = log_p(s.student), teacher = log_p(*s.teacher);
  const auto expect = [&](Divergence divergence, const at::Tensor& rows) {
    const double want = (rows.sum(1) * s.data.token_weights).sum().item<double>() / 26;
    const at::Tensor got = on_policy_step(s.student, *s.teacher, machine, divergence)(s.data, 26);
    EXPECT_NEAR(got[0].item<double>(), want, 1e-5 * want);
    EXPECT_EQ(got[1].item<double>(), 26);
  };
  expect(Divergence::kForward, teacher.exp() * (teacher - student));
  expect(Divergence::kReverse, student.exp() * (student - teacher));
}

TEST(KlStep, MixesCrossEntropyIn) {
  Setting s;
  const Machine machine;
  const auto loss = [&](double share) {
    return kl_step(s.student, *s.teacher, machine, share)(s.data, 40).item<double>();
  };
  const at::Tensor hidden = decode(s.student, to_batch(s.data, machine));
  const at::Tensor losses =
      token_losses(hidden, s.student.head.value, s.data.targets, Kernels::kFast);
  const double kl = loss(0), ignored = s.data.token_weights[12].item<double>();
  ASSERT_EQ(ignored, 0);  // so the token without a target keeps its KL in neither
  const double cross_entropy = (losses * s.data.token_weights).sum().item<double>() / 40;
  EXPECT_NEAR(loss(1), cross_entropy, 1e-5 * cross_entropy);
  EXPECT_NEAR(loss(0.3), 0.7 * kl + 0.3 * cross_entropy, 1e-5 * kl);
}

// With per-layer clipping a layer's gradient is that of its own MSE, whatever other layers there
// are; the loss that is shown stays the mean.
TEST(AlignStep, PerLayerNormalisesEachLayerAlone) {
  Setting s;
  const Machine machine;
  const std::vector<Mixer> mixers = bind_mixers(s.config, s.store);
  const auto gradient = [&](ClipMode mode, at::Tensor& figures) {
    s.store.zero_grad();
    figures = align_step(mixers, s.store, *s.teacher, machine, mode)(s.data, 40);
    return s.store.grad().clone();
  };
  at::Tensor mean, alone;
  const at::Tensor together = gradient(ClipMode::kGlobal, mean),
                   each = gradient(ClipMode::kPerLayer, alone);
  const auto layers = static_cast<double>(mixers.size());
  ASSERT_GT(layers, 1);
  EXPECT_GT(together.abs().max().item<float>(), 0);
  EXPECT_LE((each - together * layers).abs().max().item<float>(),
            1e-6 * each.abs().max().item<float>());
  EXPECT_TRUE(at::equal(mean, alone));
}

// Two students of one kind of mixer each, and the gates between them.
struct GateSetting : Setting {
  ParameterStore gates{{{"gates", {3}}}, ParameterStore::Use::kTrained, at::kFloat, at::kCPU};
  std::shared_ptr<const DecoderWeights> attention = model(MixerType::kAttention);
  std::shared_ptr<const DecoderWeights> recurrent = model(MixerType::kLightning);

  std::shared_ptr<const DecoderWeights> model(MixerType type) const {
    ModelConfig of_one_kind = config;
    of_one_kind.mixer_types.assign(3, type);
    of_one_kind.attn_logits_scaling = {};
    return test::random_model(of_one_kind, 3);
  }
  void set(const std::vector<float>& logits) {
    at::NoGradGuard no_grad;
    gates.value("gates").copy_(at::tensor(logits));
  }
  at::Tensor figures(int64_t budget) {
    gates.zero_grad();
    return gate_step(*attention, *recurrent, *teacher, gates.weight("gates"), budget, Machine())(
        data, 40);
  }
};

// Open and closed gates are the hybrid of these layers.
TEST(GateStep, IsTheHybridWhereGatesAreOpenOrClosed) {
  GateSetting s;
  s.set({-80, 80, -80});
  DecoderWeights hybrid = *s.recurrent;
  hybrid.layers[1] = s.attention->layers[1];
  const Batch batch = to_batch(s.data, Machine());
  const at::Tensor kl = token_kl(decode(hybrid, batch), hybrid.head.value,
                                 decode(*s.teacher, batch), s.teacher->head.value);
  const double want = (kl * s.data.token_weights).sum().item<double>() / 40;
  const at::Tensor figures = s.figures(1);
  EXPECT_NEAR(figures[0].item<double>(), want, 1e-5 * want);
  EXPECT_TRUE(at::allclose(figures.slice(0, 1), at::tensor({0.0F, 1.0F, 0.0F})));
  EXPECT_NEAR(s.figures(3)[0].item<double>(), want + 4, 1e-5 * (want + 4));
}

TEST(GateStep, GradientOfTheGates) {
  GateSetting s;
  const std::vector<float> logits = {-0.5F, 0.25F, 1};
  s.set(logits);
  s.figures(1);
  const at::Tensor gradient = s.gates.grad().slice(0, 0, 3).clone();
  for (int64_t i = 0; i < 3; ++i) {
    const auto loss = [&](float change) {
      std::vector<float> moved = logits;
      moved[i] += change;
      s.set(moved);
      return s.figures(1)[0].item<double>();
    };
    const float h = 0.02F;
    EXPECT_NEAR(gradient[i].item<double>(), (loss(h) - loss(-h)) / (2 * h),
                2e-3 * gradient.abs().max().item<double>());
  }
}

// On two ranks with rows of their own, whatever each keeps of student and teacher. Who fetches
// weights adds several micro-batches up in another order.
TEST(LossesOfRanks, AreTheSameWhateverEachKeeps) {
  const ModelConfig config = test::hybrid_config();
  const auto step_of = [&](int stage, const ParameterStore& student, const ParameterStore& teacher,
                           const Machine& machine) {
    const DecoderWeights theirs = bind_decoder(config, teacher);
    if (stage == 1) return align_step(bind_mixers(config, student), student, theirs, machine);
    return stage == 2 ? kl_step(bind_decoder(config, student), theirs, machine, 0.3)
                      : cross_entropy_step(bind_decoder(config, student), machine);
  };
  const auto fill = [](ParameterStore& store, uint64_t seed) {
    for (const ParameterSpec& spec : store.specs()) {
      store.write(spec.name, test::random_tensor(spec.shape, seed) * 0.2);
    }
  };
  // Loss and summed gradients of both ranks.
  const auto run = [&](int stage, Shard shard, bool checkpointing, int64_t micro_batches) {
    std::array<std::vector<at::Tensor>, 2> out;
    run_threads(2, 60, [&](Communicator& ranks) {
      ParameterStore student(stage == 1 ? all_mixer_parameters(config) : decoder_parameters(config),
                             ParameterStore::Use::kTrained, at::kFloat, at::kCPU, {&ranks, shard});
      ParameterStore teacher(decoder_parameters(config), ParameterStore::Use::kFrozen, at::kFloat,
                             at::kCPU, {&ranks, shard});
      fill(student, 7);
      fill(teacher, 8);
      Setting s;
      s.data.tokens = at::tensor(test::random_tokens(40, 10 + ranks.rank()), at::kLong);
      Machine machine;
      machine.activation_checkpointing = checkpointing;
      const ForwardBackward step = step_of(stage, student, teacher, machine);
      std::vector<at::Tensor>& mine = out[ranks.rank()];
      student.layers()->begin_step(micro_batches);
      for (int64_t i = 0; i < micro_batches; ++i) mine.push_back(step(s.data, 80));
      for (const ParameterStore::Group& group : student.groups()) {
        mine.push_back(student.summed_gradient(group).clone());
      }
    });
    std::vector<at::Tensor> all = out[0];
    all.insert(all.end(), out[1].begin(), out[1].end());
    return all;
  };
  for (const int stage : {1, 2, 3}) {
    for (const int64_t micro_batches : {1, 3}) {
      const std::vector<at::Tensor> want = run(stage, Shard::kNone, false, micro_batches);
      EXPECT_GT(want.back().abs().sum().item<float>() + want[3].abs().sum().item<float>(), 0);
      for (const Shard shard : {Shard::kNone, Shard::kOptimizer, Shard::kFull}) {
        SCOPED_TRACE(fmt::format("stage {}, shard {}, {} micro-batches", stage,
                                 word_of<Shard>(kShards, shard), micro_batches));
        const bool is_reordered = shard == Shard::kFull && micro_batches > 1;
        for (const bool checkpointing : {false, true}) {
          const std::vector<at::Tensor> got = run(stage, shard, checkpointing, micro_batches);
          ASSERT_EQ(got.size(), want.size());
          for (size_t i = 0; i < got.size(); ++i) {
            const double bound = is_reordered ? 1e-6 * want[i].abs().max().item<double>() : 0;
            EXPECT_LE((got[i] - want[i]).abs().max().item<double>(), bound) << i;
          }
        }
      }
    }
  }
}

TEST(ActivationCheckpointing, GivesTheSameBits) {
  for (const bool distill : {true, false}) {
    SCOPED_TRACE(distill);
    Setting s;
    const auto gradients = [&](bool checkpointing) {
      Machine machine;
      machine.activation_checkpointing = checkpointing;
      s.store.zero_grad();
      const ForwardBackward step = distill ? kl_step(s.student, *s.teacher, machine, 0.3)
                                           : cross_entropy_step(s.student, machine);
      std::vector<at::Tensor> out{step(s.data, 40)};
      for (const ParameterSpec& spec : s.store.specs()) {
        out.push_back(s.store.view(s.store.grad(), spec.name).clone());
      }
      return out;
    };
    const auto kept = gradients(false), again = gradients(true);
    for (size_t i = 0; i < kept.size(); ++i) {
      EXPECT_TRUE(at::equal(kept[i], again[i])) << (i ? s.store.specs()[i - 1].name : "loss");
      EXPECT_GT(kept[i].abs().max().item<float>(), 0);
    }
  }
}

}  // namespace
}  // namespace halo
