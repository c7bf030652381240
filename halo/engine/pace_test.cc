#include "halo/engine/pace.h"

#include <gtest/gtest.h>

#include <chrono>
#include <cmath>
#include <thread>

#include "halo/engine/trunk.h"
#include "halo/model/model_testing.h"

namespace halo {
namespace {

constexpr int64_t kLayers = 3;

// Where every product takes so long; layer 1 alone is attention.
Pace pace_of(const DecoderWeights& weights, double seconds_per_product) {
  Pace pace(weights);
  Pace::Chunk chunk;
  chunk.add(10, 0);
  for (int64_t layer = 0; layer < kLayers; ++layer) {
    const LayerFlops flops = flops_of(weights.layers[static_cast<size_t>(layer)]);
    double products = 10 * (flops.heads + flops.rest);
    if (layer == 1) products += chunk.seen * 4 * 4 * 8;  // 4 heads of 8
    pace.count_layer(layer, chunk, products * seconds_per_product);
  }
  return pace;
}

class PaceTest : public testing::Test {
 protected:
  const std::shared_ptr<const DecoderWeights> weights_ = test::random_model(test::hybrid_config());
};

TEST_F(PaceTest, NothingIsKnownAtFirst) {
  Pace pace(*weights_);
  Pace::Chunk chunk;
  chunk.add(10, 0);
  EXPECT_EQ(pace.step_seconds(), Pace::kNoLimit);
  EXPECT_EQ(pace.tokens_within(1, 0), Pace::kNoLimit);
  // What takes nobody knows how long goes by itself.
  EXPECT_EQ(pace.layers_within(1, 0, chunk), 1);
  EXPECT_EQ(pace.layers_within(Pace::kNoLimit, 0, chunk), kLayers);
}

TEST_F(PaceTest, AChunkIsCutWhereItsTimeEnds) {
  Pace pace = pace_of(*weights_, 1e-9);
  Pace::Chunk chunk;
  chunk.add(64, 1000);
  const auto fits = [&](double seconds, int64_t first) {
    return pace.layers_within(seconds, first, chunk);
  };
  EXPECT_EQ(fits(1e-12, 0), 1);  // none would never end
  EXPECT_EQ(fits(1e-12, 2), 1);
  EXPECT_EQ(fits(1, 0), kLayers);
  EXPECT_EQ(fits(1, 1), kLayers - 1);
  // Attention to 1,032 tokens each is most of it: the layer before goes without it.
  Pace::Chunk alone;
  alone.add(64, 0);
  double seconds = 1e-9;
  while (pace.layers_within(seconds, 0, alone) < kLayers) seconds *= 1.01;
  EXPECT_EQ(fits(seconds, 0), 1);
}

TEST_F(PaceTest, FewerTokensFitBehindALongPast) {
  Pace pace = pace_of(*weights_, 1e-9);
  const double none = pace.tokens_within(1, 0), some = pace.tokens_within(1, 10'000);
  EXPECT_GT(none, 2 * some);
  EXPECT_NEAR(pace.tokens_within(2, 10'000), 2 * some, 1e-6 * some);
  // The longest layer leaves room for the next; of twice the tokens it would not.
  Pace::Chunk chunk, longer;
  chunk.add(static_cast<int64_t>(some), 10'000);
  longer.add(static_cast<int64_t>(some / 0.5) + 1, 10'000);
  EXPECT_EQ(pace.layers_within(1, 1, chunk), 2);
  // Another pace, for which no call left anything.
  EXPECT_EQ(pace_of(*weights_, 1e-9).layers_within(1, 1, longer), 1);
}

// A step without prompts takes a second.
TEST_F(PaceTest, LayersThatCostAlikeTakeTheirShareAndNoStepMuchMore) {
  DecoderWeights alike = *weights_;
  alike.layers.assign(28, weights_->layers[0]);
  constexpr double kShare = 0.9, kMost = 1.07 * kShare;
  Pace pace(alike);
  Pace::Chunk one;
  one.add(1, 0);
  constexpr double kOfToken = 1e-4;
  for (int64_t layer = 0; layer < 28; ++layer) pace.count_layer(layer, one, kOfToken);
  const double tokens = pace.tokens_within(kShare, 0);
  EXPECT_NEAR(tokens * kOfToken, kShare / 2, 1e-9);
  // Chunks are shorter where lengths are rounded, and where prompts end.
  for (const double length : {1.0, 0.69, 0.53, 0.35}) {
    SCOPED_TRACE(testing::Message() << length << " of the longest chunk");
    Pace::Chunk chunk;
    chunk.add(static_cast<int64_t>(length * tokens), 0);
    const double of_layer = kOfToken * static_cast<double>(chunk.tokens);
    double used = 0;
    int64_t layer = 0;
    constexpr int64_t kSteps = 1000;
    for (int64_t step = 0; step < kSteps; ++step) {
      const int64_t layers = pace.layers_within(kShare, layer, chunk);
      EXPECT_LE(static_cast<double>(layers) * of_layer, kMost);
      used += static_cast<double>(layers) * of_layer;
      layer = (layer + layers) % 28;
    }
    EXPECT_LE(used, (kSteps + 1) * kShare);
    EXPECT_GE(used, 0.9 * kSteps * kShare);
  }
}

TEST_F(PaceTest, OneValueThatIsOffChangesNothing) {
  Pace pace(*weights_);
  for (const double seconds : {0.01, 5.0, 0.011, 0.012}) pace.count_step(seconds);
  EXPECT_EQ(pace.step_seconds(), 0.012);
}

TEST_F(PaceTest, WatchesWhatTheDeviceDid) {
  Pace pace(*weights_);
  const DeviceEvent begin(at::kCPU);
  std::this_thread::sleep_for(std::chrono::milliseconds(5));
  pace.watch_step(begin, DeviceEvent(at::kCPU));
  EXPECT_EQ(pace.step_seconds(), Pace::kNoLimit);
  pace.look();
  EXPECT_GE(pace.step_seconds(), 5e-3);
  EXPECT_TRUE(std::isfinite(pace.step_seconds()));
}

}  // namespace
}  // namespace halo
