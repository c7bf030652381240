#include "halo/pipeline/plan.h"

#include <gtest/gtest.h>

#include "halo/base/json.h"
#include "halo/stages/transfer.h"
#include "tests/places.h"

namespace halo {
namespace {

// HypeNet-2B, the Transformer it comes from, and what stage 1 trains.
class Plan : public testing::Test {
 protected:
  static ModelConfig published() {
    const std::string path = (test::source_dir() / "configs/model/hypenet-2b.json").string();
    return parse_model_config(read_json(path).as_object(), path);
  }
  const ModelConfig student = published(), teacher = teacher_config_of(student),
                    lightning = with_mixers(student, MixerType::kLightning);
};

// Against the peaks that comparisons/results/train-h200.json has, in bf16.
TEST_F(Plan, PeakMemoryIsWithinFivePercentOfTheMeasured) {
  const auto expect = [](const StageCost& cost, int64_t tokens, double measured) {
    const double planned = double(peak_memory(cost, tokens, /*compute_bytes=*/2, /*cpu=*/false));
    EXPECT_NEAR(planned, measured, 0.05 * measured);
  };
  const double gib = double(1 << 30);
  expect(align_cost(teacher, lightning, 512), 32 * 512, 14.28 * gib);
  expect(distill_cost(teacher, student, 512), 12 * 512, 52.08 * gib);
  expect(distill_cost(teacher, student, 512), 8 * 512, 47.13 * gib);
  expect(finetune_cost(student, 16'384), 16'384, 73.34 * gib);
  expect(distill_cost(teacher, student, 512, /*recompute=*/true), 12 * 512, 38.60 * gib);
  expect(finetune_cost(student, 16'384, /*recompute=*/true), 16'384, 37.90 * gib);
  expect(finetune_cost(student, 16'384, /*recompute=*/true), 2 * 16'384, 43.24 * gib);
}

// 5.6, 15.2 and 13.3 GFLOP a token, counted by hand from the shapes.
TEST_F(Plan, FlopsOfAToken) {
  EXPECT_NEAR(align_cost(teacher, lightning, 512).flops_a_token, 5.6e9, 0.02 * 5.6e9);
  EXPECT_NEAR(distill_cost(teacher, student, 512).flops_a_token, 15.2e9, 0.02 * 15.2e9);
  EXPECT_NEAR(finetune_cost(student, 16'384).flops_a_token, 13.3e9, 0.03 * 13.3e9);
  // One more forward pass of the layers: a third of 13.3 less the head's 0.62.
  EXPECT_NEAR(finetune_cost(student, 16'384, /*recompute=*/true).flops_a_token, 17.1e9,
              0.03 * 17.1e9);
}

}  // namespace
}  // namespace halo
