// Swapped models that share what lies below the swapped layer say what they say alone.
#include "halo/engine/trunk.h"

#include <gtest/gtest.h>

#include "ATen/ATen.h"
#include "halo/model/model_testing.h"

namespace halo {
namespace {

class TrunkTest : public testing::Test {
 protected:
  TrunkTest() {
    ModelConfig config = test::hybrid_config();
    model_ = test::random_model(config);
    other_ = test::random_model(config, 2);
  }

  std::shared_ptr<const DecoderWeights> swapped(int64_t layer) const {
    auto weights = std::make_shared<DecoderWeights>(*model_);
    weights->layers[layer].mixer = other_->layers[layer].mixer;
    return weights;
  }

  // All tokens of two sequences, one of which goes on in a fork.
  static at::Tensor ask(Engine& engine) {
    OwnedSequence a(engine), b(engine);
    const at::Tensor first =
        engine.extend({a.id(), b.id()}, {test::random_tokens(11, 20), test::random_tokens(3, 20)},
                      Engine::Rows::kAll);
    const OwnedSequence c = a.fork();
    const at::Tensor second =
        engine.extend({c.id(), b.id()}, {test::random_tokens(5, 20), test::random_tokens(2, 20)},
                      Engine::Rows::kAll);
    return at::cat({first, second});
  }

  std::shared_ptr<const DecoderWeights> model_, other_;
  const EngineOptions options_{Kernels::kReference, 4, 8};
};

TEST_F(TrunkTest, ScoresAreThoseOfWholeModels) {
  Trunk trunk;
  const auto layers = static_cast<int64_t>(model_->layers.size());
  Engine own(model_, trunk.recording(options_, false)), alone(model_, options_);
  EXPECT_LT((ask(own) - ask(alone)).abs().max().item<double>(), 1e-5);
  const double once = trunk.layer_tokens();
  EXPECT_EQ(once, 21.0 * static_cast<double>(layers));
  for (int64_t layer = 0; layer < layers; ++layer) {
    Engine shared(swapped(layer), trunk.replaying(options_, layer));
    Engine whole(swapped(layer), options_);
    const at::Tensor expected = ask(whole);
    EXPECT_LT((ask(shared) - expected).abs().max().item<double>(), 1e-5) << layer;
    EXPECT_GT((expected - ask(alone)).abs().max().item<double>(), 1e-3) << layer;
  }
  double all = 0;
  for (int64_t layer = 0; layer < layers; ++layer)
    all += 21.0 * static_cast<double>(layers - layer);
  EXPECT_EQ(trunk.layer_tokens() - once, all);
}

// The likeliest continuations, `count` tokens of each.
std::vector<std::vector<int64_t>> go_on(Engine& engine, std::vector<std::vector<int64_t>> inputs,
                                        int64_t count) {
  std::vector<int64_t> sequences;
  for (size_t i = 0; i < inputs.size(); ++i) sequences.push_back(engine.create());
  std::vector<std::vector<int64_t>> all(inputs.size());
  for (int64_t n = 0; n < count; ++n) {
    const at::Tensor tokens = engine.advance(sequences, inputs).argmax(1);
    for (size_t i = 0; i < inputs.size(); ++i) {
      inputs[i] = {tokens[static_cast<int64_t>(i)].item<int64_t>()};
      all[i].push_back(inputs[i].front());
    }
  }
  return all;
}

TEST_F(TrunkTest, GenerationGoesOnFromTheSharedPrompts) {
  std::vector<std::vector<int64_t>> prompts;
  for (int64_t n : {9, 4, 13, 1}) prompts.push_back(test::random_tokens(n, 20));
  constexpr int64_t kCount = 12;
  for (int64_t layer = 0; layer < static_cast<int64_t>(model_->layers.size()); ++layer) {
    Trunk trunk;
    Engine own(model_, trunk.recording(options_, true)), alone(model_, options_);
    EXPECT_EQ(go_on(own, prompts, kCount), go_on(alone, prompts, kCount));
    Engine shared(swapped(layer), trunk.replaying(options_, layer)),
        whole(swapped(layer), options_);
    EXPECT_EQ(go_on(shared, prompts, kCount), go_on(whole, prompts, kCount)) << layer;
  }
}

TEST_F(TrunkTest, OtherTokensAreRunWhole) {
  Trunk trunk;
  Engine own(model_, trunk.recording(options_, true));
  ask(own);
  Engine shared(swapped(1), trunk.replaying(options_, 1)), whole(swapped(1), options_);
  const auto tokens = test::random_tokens(7, 20, 5);
  for (Engine* engine : {&shared, &whole}) EXPECT_EQ(engine->create(), 0);
  const at::Tensor a = shared.extend({0}, {tokens}, Engine::Rows::kAll);
  EXPECT_TRUE(a.equal(whole.extend({0}, {tokens}, Engine::Rows::kAll)));
}

}  // namespace
}  // namespace halo
