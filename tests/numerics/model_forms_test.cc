// Whole models, whatever way their tokens are fed: the chunked, recurrent and quadratic forms of
// lightning attention, a prompt split at any point, and sequences packed together. Bit-equal on the
// reference kernels; within 5e-5 of the output's RMS on the fast ones.
#include <gtest/gtest.h>

#include "ATen/ATen.h"
#include "halo/base/check.h"
#include "halo/engine/engine.h"
#include "halo/model/model_testing.h"

namespace halo {
namespace {

using test::plain_decode;
using test::random_tokens;
using test::relative_error;

constexpr double kFastBound = 5e-5;

struct Case {
  const char* name;
  ModelConfig config;
  Kernels kernels;
};

void PrintTo(const Case& c, std::ostream* out) {
  *out << c.name;
}

class ModelForms : public testing::TestWithParam<Case> {
 protected:
  ModelForms() : weights_(test::random_model(GetParam().config)) {}
  void expect_same(const at::Tensor& actual, const at::Tensor& expected,
                   const std::string& what) const {
    ASSERT_EQ(actual.sizes(), expected.sizes()) << what;
    if (GetParam().kernels == Kernels::kReference) {
      EXPECT_TRUE(at::equal(actual, expected)) << what;
    } else {
      EXPECT_LE(relative_error(actual, expected), kFastBound) << what;
    }
  }
  at::Tensor plain(const std::vector<int64_t>& tokens) const {
    return plain_decode(*weights_, tokens, GetParam().kernels);
  }

  std::shared_ptr<const DecoderWeights> weights_;
};

// Any split of 70 tokens, and a few of 300 around the chunks of the fast forms.
TEST_P(ModelForms, SplitAnywhereEqualsOneGo) {
  for (const auto& [length, step] : {std::pair<int64_t, int64_t>{70, 1}, {300, 43}}) {
    const auto tokens = random_tokens(length, 1);
    const at::Tensor expected = plain(tokens);
    for (int64_t split = 1; split < length; split += step) {
      Engine engine(weights_, {GetParam().kernels, 16, 512});
      const int64_t sequence = engine.create();
      std::vector<at::Tensor> parts;
      for (const auto& [begin, end] : {std::pair{int64_t{0}, split}, {split, length}}) {
        parts.push_back(engine.extend({sequence}, {{tokens.begin() + begin, tokens.begin() + end}},
                                      Engine::Rows::kAll));
      }
      expect_same(at::cat(parts), expected, fmt::format("{} of {}", split, length));
    }
  }
}

TEST_P(ModelForms, OneTokenAtATimeEqualsOneGo) {
  const auto tokens = random_tokens(150, 2);
  Engine engine(weights_, {GetParam().kernels, 16, 512});
  const int64_t sequence = engine.create();
  std::vector<at::Tensor> rows;
  for (int64_t token : tokens) {
    rows.push_back(engine.extend({sequence}, {{token}}, Engine::Rows::kAll));
  }
  expect_same(at::cat(rows), plain(tokens), "decode");
}

TEST_P(ModelForms, PackedEqualsSeparate) {
  at::NoGradGuard no_grad;
  std::vector<int64_t> packed, offsets = {0};
  std::vector<at::Tensor> separate;
  for (int64_t length : {1, 63, 64, 65, 5, 130, 200}) {
    const auto tokens = random_tokens(length, static_cast<uint64_t>(length));
    packed.insert(packed.end(), tokens.begin(), tokens.end());
    offsets.push_back(static_cast<int64_t>(packed.size()));
    separate.push_back(plain(tokens));
  }
  Batch batch = make_batch(at::tensor(packed, at::kLong), offsets, at::kCPU);
  batch.kernels = GetParam().kernels;
  expect_same(decode(*weights_, batch), at::cat(separate), "packed");
}

// What a recorded step does from batch to batch: other tokens and positions in the same tensors,
// and empty sequences at the end.
TEST_P(ModelForms, RefilledBatchEqualsANewOne) {
  at::NoGradGuard no_grad;
  const std::vector<int64_t> offsets{0, 40, 130}, padded{0, 40, 130, 130, 130};
  const auto tokens = [](uint64_t seed) { return at::tensor(random_tokens(130, seed), at::kLong); };
  Batch batch = make_batch(tokens(1), padded, at::kCPU);
  batch.kernels = GetParam().kernels;
  decode(*weights_, batch);
  const at::Tensor later = positions_of(offsets) + 1000;
  Batch fresh = make_batch(tokens(2), offsets, later, at::kCPU);
  fresh.kernels = GetParam().kernels;
  batch.tokens.copy_(tokens(2));
  batch.positions.copy_(later);
  expect_same(decode(*weights_, with_new_cache(batch)), decode(*weights_, fresh), "refilled");
}

ModelConfig learned_decay_config() {
  ModelConfig config = test::hybrid_config();
  config.lightning_learned_decay = true;
  return config;
}

INSTANTIATE_TEST_SUITE_P(
    All, ModelForms,
    testing::Values(Case{"teacher_reference", test::transformer_config(), Kernels::kReference},
                    Case{"hybrid_reference", test::hybrid_config(), Kernels::kReference},
                    Case{"teacher_fast", test::transformer_config(), Kernels::kFast},
                    Case{"hybrid_fast", test::hybrid_config(), Kernels::kFast},
                    Case{"learned_decay_reference", learned_decay_config(), Kernels::kReference},
                    Case{"learned_decay_fast", learned_decay_config(), Kernels::kFast}),
    [](const auto& info) { return std::string(info.param.name); });

// One lightning mixer by the quadratic formula in fp64, with the weights and steps around it from
// the model itself: M[t, s] = g^(t-s), o = scale ((q k^T) * M) v (hypenet.md 1.2).
at::Tensor quadratic_heads(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                           const std::vector<double>& slopes, double scale) {
  const at::Tensor t = at::arange(q.size(0), at::kDouble);
  const at::Tensor distance = (t.unsqueeze(1) - t).clamp_min(0);
  const at::Tensor mask =
      at::exp(-at::tensor(slopes, at::kDouble).view({-1, 1, 1}) * distance).tril();
  const at::Tensor scores = at::matmul(q.transpose(0, 1), k.transpose(0, 1).transpose(1, 2)) * mask;
  return at::matmul(scores, v.transpose(0, 1)).transpose(0, 1) * scale;
}

// A lightning-only model without the parts around the recurrence that would need a second
// implementation here (norms of q and k, rotation), so that its mixer is the bare formula.
TEST(LightningKernels, QuadraticEqualsChunkedEqualsRecurrent) {
  at::NoGradGuard no_grad;
  ModelConfig config = test::hybrid_config();
  config.mixer_types.assign(3, MixerType::kLightning);
  config.lightning_use_qk_norm = config.lightning_use_rope = false;
  config.lightning_use_output_norm = config.lightning_use_output_gate = false;
  const auto weights = test::random_model(config);
  for (int64_t length : {1, 63, 64, 65, 200}) {
    const auto tokens = random_tokens(length, 3);
    Batch batch = make_batch(at::tensor(tokens, at::kLong), {0, length}, at::kCPU);
    decode_visiting(*weights, batch, [&](int64_t layer, const at::Tensor& x, const at::Tensor&) {
      const auto& w = std::get<LightningWeights>(weights->layers[layer].mixer);
      const int64_t rows = w.heads * w.head_dim;
      const at::Tensor qkv = at::matmul(x.to(at::kDouble), w.qkvz.value.to(at::kDouble).t());
      const auto part = [&](int64_t i) {
        return qkv.narrow(1, i * rows, rows).view({length, w.heads, w.head_dim});
      };
      const at::Tensor expected =
          quadratic_heads(part(0), part(1), part(2), w.slopes, w.scale).reshape({length, rows});
      for (Kernels kernels : {Kernels::kFast, Kernels::kReference}) {
        Batch again = batch;
        again.kernels = kernels;
        const at::Tensor heads =
            mixer_heads(weights->layers[layer].mixer, weights->eps, x, again, layer);
        EXPECT_LE(relative_error(heads, expected), kFastBound) << length << " layer " << layer;
      }
    });
    const at::Tensor chunked = plain_decode(*weights, tokens, Kernels::kFast);
    const at::Tensor recurrent = plain_decode(*weights, tokens, Kernels::kReference);
    EXPECT_LE(relative_error(chunked, recurrent), kFastBound) << length;
  }
}

// Along a random direction of the decays' weights, against the difference of the loss: of fp32, so
// of some 2^-24 / 1e-2 of the loss's terms.
TEST(LearnedDecay, GradientsAreDifferencesOfTheLoss) {
  const ModelConfig config = learned_decay_config();
  ParameterStore store(decoder_parameters(config), ParameterStore::Use::kTrained, at::kFloat,
                       at::kCPU);
  test::fill_random(store, 5, /*unit_embedding=*/true);
  const DecoderWeights weights = bind_decoder(config, store);
  const Batch batch =
      make_batch(at::tensor(random_tokens(150, 6), at::kLong), {0, 20, 150}, at::kCPU);
  const auto loss = [&] {
    const at::Tensor hidden = decode(weights, batch);
    return (hidden.to(at::kDouble) *
            at::sin(at::arange(hidden.numel(), at::kDouble)).view_as(hidden))
        .sum();
  };
  store.zero_grad();
  loss().backward();
  const at::NoGradGuard no_grad;
  for (const char* tensor : {"decay_proj.weight", "decay_proj.bias"}) {
    for (const int64_t layer : {0, 2}) {
      const std::string name = fmt::format("model.layers.{}.self_attn.{}", layer, tensor);
      const at::Tensor value = store.value(name), before = value.clone();
      const at::Tensor direction = at::cos(at::arange(value.numel(), at::kFloat)).view_as(value);
      constexpr double kStep = 1e-2;
      const auto at_distance = [&](double step) {
        value.copy_(before + step * direction);
        return loss().item<double>();
      };
      const double difference = (at_distance(kStep) - at_distance(-kStep)) / (2 * kStep);
      value.copy_(before);
      const double gradient = (store.view(store.grad(), name) * direction).sum().item<double>();
      EXPECT_NEAR(gradient, difference, 5e-3 * std::abs(difference) + 1e-3) << name;
      EXPECT_GT(std::abs(gradient), 1e-2) << name;
    }
  }
}

TEST(HybridForms, FastEqualsReference) {
  const auto weights = test::random_model(test::hybrid_config());
  for (int64_t length : {1, 64, 65, 300}) {
    const auto tokens = random_tokens(length, 4);
    EXPECT_LE(relative_error(plain_decode(*weights, tokens, Kernels::kFast),
                             plain_decode(*weights, tokens, Kernels::kReference)),
              kFastBound)
        << length;
  }
}

}  // namespace
}  // namespace halo
