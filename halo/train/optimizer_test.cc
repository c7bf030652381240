#include "halo/train/optimizer.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "ATen/ATen.h"

namespace halo {
namespace {

constexpr double kNaN = std::numeric_limits<double>::quiet_NaN();

// Two layers with gradient norms 5 and 10, and a parameter outside with norm 1.
struct Toy {
  Toy()
      : store({{"model.layers.0.a", {2}},
               {"model.layers.1.a", {1}},
               {"model.layers.1.b", {1, 1}},
               {"model.norm.weight", {1}}},
              ParameterStore::Use::kTrained, at::kFloat, at::kCPU) {
    set(store.grad(), "model.layers.0.a", {3, 4});
    set(store.grad(), "model.layers.1.a", {6});
    set(store.grad(), "model.layers.1.b", {8});
    set(store.grad(), "model.norm.weight", {1});
    store.master().fill_(1);
  }
  void set(const at::Tensor& arena, const char* name, std::vector<float> values) {
    at::Tensor view = store.view(arena, name).view({-1});
    for (size_t i = 0; i < values.size(); ++i) view[i] = values[i];
  }
  // First moment / (1 - beta1): the clipped gradient.
  double clipped(const char* name, int64_t index = 0) {
    return store.view(store.moment1(), name).view({-1})[index].item<double>() / (1 - 0.9);
  }
  ParameterStore store;
};

Optimizer::Update step(Toy& toy, const TrainRecipe& recipe, double loss = 1) {
  return Optimizer(toy.store, recipe).step(1, 0.1, at::scalar_tensor(loss, at::kDouble));
}

const double kNorm = std::sqrt(25.0 + 100 + 1);

TEST(Optimizer, ClipsByTheNormOfAll) {
  Toy toy;
  const auto update = step(toy, {.clip = 2});
  EXPECT_DOUBLE_EQ(update.norm.item<double>(), kNorm);
  EXPECT_EQ(update.applied.item<float>(), 1);
  const double factor = 2 / (kNorm + 1e-6);
  EXPECT_NEAR(toy.clipped("model.layers.0.a", 1), 4 * factor, 1e-6);
  EXPECT_NEAR(toy.clipped("model.layers.1.b"), 8 * factor, 1e-6);
}

TEST(Optimizer, LeavesASmallGradientAsItIs) {
  Toy toy;
  step(toy, {.clip = 20});
  EXPECT_NEAR(toy.clipped("model.layers.1.b"), 8, 8e-7 * 2);
}

TEST(Optimizer, ClipsEachLayerByItsOwnNorm) {
  Toy toy;
  const auto update = step(toy, {.clip = 7, .clip_mode = ClipMode::kPerLayer});
  EXPECT_DOUBLE_EQ(update.norm.item<double>(), kNorm);       // as it was before clipping
  EXPECT_NEAR(toy.clipped("model.layers.0.a", 1), 4, 1e-6);  // norm 5: under the limit
  EXPECT_NEAR(toy.clipped("model.layers.1.a"), 6 * 7 / (10 + 1e-6), 1e-6);
  EXPECT_NEAR(toy.clipped("model.layers.1.b"), 8 * 7 / (10 + 1e-6), 2e-6);
  EXPECT_NEAR(toy.clipped("model.norm.weight"), 1, 1e-6);
}

TEST(Optimizer, DecaysMatricesOnly) {
  Toy toy;
  toy.store.zero_grad();
  step(toy, {.weight_decay = 0.5});
  EXPECT_FLOAT_EQ(toy.store.value("model.layers.1.b").item<float>(), 1 - 0.1 * 0.5);
  EXPECT_EQ(toy.store.value("model.norm.weight").item<float>(), 1);
}

TEST(Optimizer, AnUpdateThatIsNotFiniteChangesNothing) {
  for (const ClipMode mode : {ClipMode::kGlobal, ClipMode::kPerLayer}) {
    for (const bool bad_loss : {false, true}) {
      Toy toy;
      if (!bad_loss) toy.set(toy.store.grad(), "model.layers.1.a", {float(kNaN)});
      const auto update = step(toy, {.clip_mode = mode}, bad_loss ? kNaN : 1);
      EXPECT_EQ(update.applied.item<float>(), 0);
      EXPECT_TRUE(toy.store.master().eq(1).all().item<bool>());
      EXPECT_TRUE(toy.store.moment1().eq(0).all().item<bool>());
      EXPECT_TRUE(toy.store.moment2().eq(0).all().item<bool>());
    }
  }
}

TEST(Optimizer, RefreshesTheComputeCopy) {
  ParameterStore store({{"w", {4}}}, ParameterStore::Use::kTrained, at::kBFloat16, at::kCPU);
  store.grad().fill_(1);
  const TrainRecipe recipe;
  Optimizer(store, recipe).step(1, 0.1, at::scalar_tensor(1.0, at::kDouble));
  EXPECT_NE(store.master()[0].item<float>(), 0);
  EXPECT_TRUE(at::equal(store.compute(), store.master().to(at::kBFloat16)));
}

}  // namespace
}  // namespace halo
