// Swapped models that share what lies below the swapped layer say what they say alone.
#include "halo/engine/trunk.h"

#include <gtest/gtest.h>

#include "ATen/ATen.h"
#include "halo/engine/generate.h"
#include "halo/model/model_testing.h"

namespace halo {
namespace {

class TrunkTest : public testing::Test {
 protected:
  TrunkTest() {
    const ModelConfig config = test::transformer_config();
    model_ = test::random_model(config);
    ModelConfig lightning = test::hybrid_config();
    lightning.mixer_types.assign(config.mixer_types.size(), MixerType::kLightning);
    other_ = test::random_model(lightning, 2);
  }

  int64_t num_layers() const { return std::ssize(model_->layers); }

  std::shared_ptr<const DecoderWeights> swapped(int64_t layer) const {
    auto weights = std::make_shared<DecoderWeights>(*model_);
    weights->layers[layer].mixer = other_->layers[layer].mixer;
    return weights;
  }

  inline static const std::vector<int64_t> kFirst = test::random_tokens(11, 20),
                                           kSecond = test::random_tokens(3, 21),
                                           kThird = test::random_tokens(5, 22);

  // Rows of two sequences, one of which goes on in a fork.
  static at::Tensor ask(Engine& engine) {
    OwnedSequence a(engine), b(engine);
    const at::Tensor first = engine.extend({a.id(), b.id()}, {kFirst, kSecond}, Engine::Rows::kAll);
    const OwnedSequence c = a.fork();
    const at::Tensor second =
        engine.extend({c.id(), b.id()}, {kThird, {17, 18}}, std::vector<int64_t>{4, 0});
    return at::cat({first, second});
  }
  static constexpr double kTokens = 21;

  static void expect_near(const at::Tensor& actual, const at::Tensor& expected) {
    ASSERT_EQ(actual.sizes(), expected.sizes());
    EXPECT_LT((actual - expected).abs().max().item<double>(), 1e-5);
  }

  // What a layer's weights cost a token.
  static double flops_of(const LayerWeights& layer) {
    double elements = static_cast<double>(layer.gate_up.value.numel() + layer.down.value.numel());
    std::visit([&](const auto& w) { elements += static_cast<double>(w.o_proj.value.numel()); },
               layer.mixer);
    if (const auto* w = std::get_if<AttentionWeights>(&layer.mixer)) {
      elements += static_cast<double>(w->qkvg.value.numel());
    } else {
      elements += static_cast<double>(std::get<LightningWeights>(layer.mixer).qkvz.value.numel());
    }
    return 2 * elements;
  }
  // Layers `first` and up of so many tokens; of the last one, so many rows are wanted.
  static double flops_from(const DecoderWeights& weights, int64_t first, double tokens,
                           double rows) {
    double flops = 0;
    for (size_t i = static_cast<size_t>(first); i < weights.layers.size(); ++i) {
      flops += tokens * flops_of(weights.layers[i]);
    }
    const LayerWeights& last = weights.layers.back();
    const double o_proj = std::visit(
        [](const auto& w) { return static_cast<double>(w.o_proj.value.numel()); }, last.mixer);
    const double behind =
        2 * (o_proj + static_cast<double>(last.gate_up.value.numel() + last.down.value.numel()));
    return flops - (tokens - rows) * behind;
  }

  std::shared_ptr<const DecoderWeights> model_, other_;
  const EngineOptions options_{Kernels::kReference, 4, 8};
};

TEST_F(TrunkTest, ScoresAreThoseOfWholeModels) {
  Trunk trunk;
  Engine own(model_, trunk.recording(options_)), alone(model_, options_);
  expect_near(ask(own), ask(alone));
  double flops = flops_from(*model_, 0, kTokens, kTokens - 3);
  EXPECT_DOUBLE_EQ(trunk.cost().flops, flops);
  double whole = flops_from(*model_, 0, kTokens, kTokens);
  for (int64_t layer = 0; layer < num_layers(); ++layer) {
    Engine shared(swapped(layer), trunk.replaying(options_, layer));
    Engine by_itself(swapped(layer), options_);
    const at::Tensor expected = ask(by_itself);
    expect_near(ask(shared), expected);
    EXPECT_GT((expected - ask(alone)).abs().max().item<double>(), 1e-3) << layer;
    flops += flops_from(*swapped(layer), layer, kTokens, kTokens - 3);
    whole += flops_from(*swapped(layer), 0, kTokens, kTokens);
  }
  EXPECT_DOUBLE_EQ(trunk.cost().flops, flops);
  EXPECT_DOUBLE_EQ(trunk.cost().whole_flops, whole);
}

// The same texts in other blocks, other orders and other pieces.
TEST_F(TrunkTest, RowsAreFoundByTheTextBeforeThem) {
  Trunk trunk;
  Engine own(model_, trunk.recording(options_));
  ask(own);
  const double flops = trunk.cost().flops;
  const auto unread = test::random_tokens(9, 23);
  for (int64_t layer = 1; layer < num_layers(); ++layer) {
    Engine shared(swapped(layer), trunk.replaying({Kernels::kReference, 8, 64}, layer));
    Engine by_itself(swapped(layer), options_);
    const auto rows = [&](Engine& engine) {
      const OwnedSequence other(engine), second(engine), first(engine);
      std::vector<at::Tensor> out = {
          engine.extend({second.id(), other.id()}, {kSecond, unread}, Engine::Rows::kAll),
          engine.extend({first.id()}, {{kFirst.begin(), kFirst.begin() + 2}}, Engine::Rows::kAll),
          engine.extend({first.id()}, {{kFirst.begin() + 2, kFirst.end()}}, Engine::Rows::kAll),
          engine.extend({first.id()}, {kThird}, Engine::Rows::kAll)};
      return at::cat(out);
    };
    expect_near(rows(shared), rows(by_itself));
  }
  // Of the 28 tokens, 9 had not been read.
  double expected = 0;
  for (int64_t layer = 1; layer < num_layers(); ++layer) {
    const auto weights = swapped(layer);
    expected += flops_from(*weights, layer, 28, 28);
    for (int64_t i = 0; i < layer; ++i) expected += 9 * flops_of(weights->layers[i]);
  }
  EXPECT_NEAR(trunk.cost().flops - flops, expected, 1);
}

// Answers of a scheduler: prompts that share, some alone; sequences end when they like.
class TrunkAnswers : public TrunkTest {
 protected:
  std::vector<std::vector<int64_t>> ask(std::shared_ptr<const DecoderWeights> weights,
                                        decltype(EngineOptions::forward) forward) const {
    Scheduler scheduler(std::move(weights), {.kernels = Kernels::kReference,
                                             .max_running = 4,
                                             .prefill_chunk = 24,
                                             .block_size = 4,
                                             .min_reused = 3,
                                             .forward = std::move(forward)});
    const std::vector<int64_t> story = test::random_tokens(13, 20);
    std::vector<Request> requests;
    for (int64_t n : {9, 4, 30, 1, 6, 2}) {
      std::vector<int64_t> prompt = test::random_tokens(n, static_cast<uint64_t>(20 + n));
      if (n % 2 == 0) prompt.insert(prompt.begin(), story.begin(), story.end());
      requests.push_back({.prompt = prompt, .max_tokens = 12, .stop_ids = {3, 7, 11, 15}});
    }
    std::vector<std::vector<int64_t>> texts;
    for (const Answer& answer : answer(scheduler, requests)) texts.push_back(answer.tokens);
    return texts;
  }
};

TEST_F(TrunkAnswers, AreThoseOfWholeModels) {
  Trunk trunk;
  const auto own = ask(model_, trunk.recording({}).forward);
  EXPECT_EQ(own, ask(model_, {}));
  bool differs = false;
  for (int64_t layer = 0; layer < num_layers(); ++layer) {
    const TrunkCost before = trunk.cost();
    const auto shared = ask(swapped(layer), trunk.replaying({}, layer).forward);
    EXPECT_EQ(shared, ask(swapped(layer), {})) << layer;
    differs |= shared != own;
    if (layer == 0) continue;
    EXPECT_LT(trunk.cost().flops - before.flops, trunk.cost().whole_flops - before.whole_flops);
  }
  EXPECT_TRUE(differs) << "no swapped model went its own way";
}

TEST_F(TrunkTest, RefusesStatesThatItDoesNotKeep) {
  Trunk trunk;
  Engine hybrid(test::random_model(test::hybrid_config()), trunk.recording(options_));
  EXPECT_THROW(ask(hybrid), std::exception);
  Trunk empty;
  Engine early(swapped(1), empty.replaying(options_, 1));
  EXPECT_THROW(ask(early), std::exception);
}

}  // namespace
}  // namespace halo
