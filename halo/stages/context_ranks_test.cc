// Stage 3's step where ranks share rows: a whole model's loss and gradients beside those of one
// rank that has all of them.
#include <gtest/gtest.h>

#include "ATen/ATen.h"
#include "halo/kernels/linear_cross_entropy/linear_cross_entropy.h"
#include "halo/model/model_testing.h"
#include "halo/runtime/ranks.h"
#include "halo/stages/losses.h"
#include "tests/op_check.h"

namespace halo {
namespace {

constexpr int64_t kTokens = 240;

ModelConfig student_config() {
  ModelConfig config = test::hybrid_config();
  config.num_heads = config.num_kv_heads = 4;
  config.lightning_use_rope = true;
  return config;
}

// Two rows, cut into documents or not; batch 2 is one row, over every cut.
TrainBatch batch_of(int64_t index) {
  TrainBatch data;
  data.rows = index == 2 ? 1 : 2;
  data.offsets = std::vector<std::vector<int64_t>>{
      {0, 7, 59, 60, 61, 120, 190, 240}, {0, 120, 240}, {0, 240}}[index];
  data.tokens = at::tensor(test::random_tokens(kTokens, 10 + index), at::kLong);
  data.targets = data.tokens.roll(-1);
  for (size_t s = 1; s < data.offsets.size(); ++s) {
    data.targets[data.offsets[s] - 1] = kIgnoreTarget;
  }
  data.token_weights = at::ones({kTokens});
  return data;
}

struct Step {
  double loss = 0;
  at::Tensor gradient;
};

// Of `groups` batches, from `first` on, on as many groups of `size` ranks. The weights are those of
// bf16, in any type.
Step step_on(int64_t groups, int64_t size, const Machine& machine, int64_t first = 0) {
  std::vector<Step> steps(groups * size);
  int64_t count = 0;
  for (int64_t g = 0; g < groups; ++g) count += count_targets(batch_of(first + g));
  run_threads(groups * size, 60, [&](Communicator& ranks) {
    const ModelConfig config = student_config();
    ParameterStore store(decoder_parameters(config), ParameterStore::Use::kTrained, machine.compute,
                         at::kCPU);
    test::fill_random(store, 5);
    for (const ParameterSpec& spec : store.specs()) {
      at::Tensor value = store.value(spec.name);
      value.copy_(value.to(at::kBFloat16));
    }
    store.refresh_compute();
    const ForwardBackward step =
        cross_entropy_step(bind_decoder(config, store), machine, {&ranks, size});
    store.zero_grad();
    Step& mine = steps[ranks.rank()];
    mine.loss = step(batch_of(first + ranks.rank() / size), count).item<double>();
    mine.gradient = store.grad().clone();
  });
  Step sum{0, at::zeros_like(steps[0].gradient)};
  for (const Step& step : steps) {
    sum.loss += step.loss;
    sum.gradient += step.gradient;
  }
  return sum;
}

TEST(ContextRanks, GiveTheLossAndTheGradientsOfOneRank) {
  for (const Kernels kernels : {Kernels::kFast, Kernels::kReference}) {
    for (const bool checkpointing : {false, true}) {
      Machine machine;
      machine.kernels = kernels;
      machine.activation_checkpointing = checkpointing;
      for (const auto& [groups, size] : {std::pair{1, 2}, {1, 4}, {2, 2}}) {
        SCOPED_TRACE(
            fmt::format("{} groups of {}, checkpointing: {}", groups, size, checkpointing));
        const Step one = step_on(groups, 1, machine), got = step_on(groups, size, machine);
        EXPECT_NEAR(got.loss, one.loss, 1e-6 * one.loss);
        test::expect_rms("gradient", got.gradient, one.gradient, 1e-6);
        const Step again = step_on(groups, size, machine);
        EXPECT_EQ(again.loss, got.loss);
        test::expect_equal("gradient", again.gradient, got.gradient);
      }
    }
  }
}

double distance(const at::Tensor& x, const at::Tensor& from) {
  return ((x - from).norm() / from.norm()).item<double>();
}

// What crosses a cut is fp32 and rounded as often as within one rank. So in bf16 gradients of
// several ranks are no farther from fp32's than those of one, and next to these.
TEST(ContextRanks, AreAsNearToFp32InBf16AsOneRank) {
  for (const bool checkpointing : {false, true}) {
    Machine machine;
    machine.activation_checkpointing = checkpointing;
    const Step exact = step_on(1, 1, machine, 2);
    machine.compute = at::kBFloat16;
    const Step one = step_on(1, 1, machine, 2);
    const double own = distance(one.gradient, exact.gradient);
    for (const int64_t size : {2, 4}) {
      SCOPED_TRACE(fmt::format("{} ranks, checkpointing: {}", size, checkpointing));
      const Step got = step_on(1, size, machine, 2);
      const double error = distance(got.gradient, exact.gradient),
                   apart = distance(got.gradient, one.gradient);
      RecordProperty(
          fmt::format("{}-ranks", size),
          fmt::format("from fp32 {:.2g}, one rank {:.2g}; apart {:.2g}", error, own, apart));
      EXPECT_LE(error, 1.001 * own);
      EXPECT_LE(apart, 1e-3);
    }
  }
}

}  // namespace
}  // namespace halo
