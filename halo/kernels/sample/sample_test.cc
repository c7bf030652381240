#include "halo/kernels/sample/sample.h"

#include "halo/base/check.h"
#include "tests/op_check.h"

namespace halo {
namespace {

using test::expect_equal;
using test::random_tensor;

at::Tensor row(std::vector<float> values) {
  return at::tensor(values).unsqueeze(0);
}

// One draw from one row of logits.
int64_t draw(const at::Tensor& logits, const SampleArgs& args, float uniform) {
  return sample_tokens(logits, args, at::full({1}, uniform)).item<int64_t>();
}

// Probabilities 0.1, 0.4, 0.2, 0.3.
at::Tensor four_tokens() {
  return row({0.1f, 0.4f, 0.2f, 0.3f}).log();
}

TEST(Sample, GreedyTakesTheLowestOfEqualIds) {
  const auto logits = at::tensor({0.f, 3.f, 3.f, 1.f, 5.f, -1.f, 5.f, 5.f}).view({2, 4});
  expect_equal("ids", sample_tokens(logits, {}, {}), at::tensor({1, 0}, at::kLong));
  expect_equal("bf16", sample_tokens(logits.to(at::kBFloat16), {}, {}),
               at::tensor({1, 0}, at::kLong));
}

TEST(Sample, InverseDistributionByFallingProbability) {
  const SampleArgs args{.temperature = 1};  // ids in order: 1, 3, 2, 0
  EXPECT_EQ(draw(four_tokens(), args, 0.0f), 1);
  EXPECT_EQ(draw(four_tokens(), args, 0.39f), 1);
  EXPECT_EQ(draw(four_tokens(), args, 0.41f), 3);
  EXPECT_EQ(draw(four_tokens(), args, 0.69f), 3);
  EXPECT_EQ(draw(four_tokens(), args, 0.71f), 2);
  EXPECT_EQ(draw(four_tokens(), args, 0.91f), 0);
  EXPECT_EQ(draw(four_tokens(), args, 0x1.fffffep-1f), 0);
}

TEST(Sample, EqualLogitsAreOrderedById) {
  const auto logits = row({2, 2, 2, 2});
  const SampleArgs args{.temperature = 0.5};
  for (int64_t id = 0; id < 4; ++id) EXPECT_EQ(draw(logits, args, (id + 0.5f) / 4), id);
}

TEST(Sample, TemperatureSharpens) {
  const SampleArgs cold{.temperature = 0.01};
  EXPECT_EQ(draw(four_tokens(), cold, 0.999f), 1);
}

TEST(Sample, TopKKeepsTheMostLikely) {
  const SampleArgs args{.temperature = 1, .top_k = 2};  // 0.4 / 0.7 = 0.571
  EXPECT_EQ(draw(four_tokens(), args, 0.56f), 1);
  EXPECT_EQ(draw(four_tokens(), args, 0.58f), 3);
  EXPECT_EQ(draw(four_tokens(), args, 0.9999f), 3);
  const SampleArgs wide{.temperature = 1, .top_k = 100};
  EXPECT_EQ(draw(four_tokens(), wide, 0.95f), 0);
}

TEST(Sample, TopPKeepsTheSmallestSufficientSet) {
  const SampleArgs two{.temperature = 1, .top_p = 0.6};
  EXPECT_EQ(draw(four_tokens(), two, 0.9999f), 3);
  const SampleArgs three{.temperature = 1, .top_p = 0.75};
  EXPECT_EQ(draw(four_tokens(), three, 0.9999f), 2);
  const SampleArgs one{.temperature = 1, .top_p = 1e-9};
  EXPECT_EQ(draw(four_tokens(), one, 0.9999f), 1);
}

TEST(Sample, NeverDrawsAnImpossibleToken) {
  const float never = -std::numeric_limits<float>::infinity();
  const SampleArgs args{.temperature = 1};
  EXPECT_EQ(draw(row({never, 0, never}), args, 0x1.fffffep-1f), 1);
  EXPECT_EQ(draw(row({never, 0, never}), args, 0), 1);
}

TEST(Sample, RowsDoNotDependOnTheirNeighbours) {
  const auto logits = random_tensor({9, 501}, 1) * 3;
  const auto uniforms = random_tensor({9}, 2).sigmoid();
  const SampleArgs args{.temperature = 0.8, .top_p = 0.9, .top_k = 50};
  const auto all = sample_tokens(logits, args, uniforms);
  for (int64_t s = 0; s < 9; ++s) {
    expect_equal("row", sample_tokens(logits.narrow(0, s, 1), args, uniforms.narrow(0, s, 1)),
                 all.narrow(0, s, 1));
  }
}

TEST(Sample, FrequenciesFollowTheProbabilities) {
  const int64_t draws = 10'000;
  const auto uniforms = (at::arange(draws, at::kFloat) + 0.5) / draws;
  const auto ids = sample_tokens(four_tokens().expand({draws, 4}), {.temperature = 1}, uniforms);
  const auto counts = at::bincount(ids, {}, 4);
  expect_equal("counts", counts, at::tensor({1000, 4000, 2000, 3000}, at::kLong));
}

TEST(Sample, RefusesWrongSettings) {
  EXPECT_THROW(draw(four_tokens(), {.temperature = 1, .top_p = 0}, 0.5f), Error);
  EXPECT_THROW(draw(four_tokens(), {.temperature = -1}, 0.5f), Error);
  EXPECT_THROW(sample_tokens(four_tokens(), {.temperature = 1}, at::rand({2})), Error);
}

}  // namespace
}  // namespace halo
