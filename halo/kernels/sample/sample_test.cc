#include "halo/kernels/sample/sample.h"

#include "halo/base/check.h"
#include "tests/gpu.h"
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
  const SampleRow rows[] = {{&args, uniform}};
  return sample_tokens(logits, rows).item<int64_t>();
}

// A draw a row, all with the same settings.
at::Tensor draw_rows(const at::Tensor& logits, const SampleArgs& args,
                     const std::vector<float>& uniforms) {
  std::vector<SampleRow> rows;
  for (const float uniform : uniforms) rows.push_back({&args, uniform});
  return sample_tokens(logits, rows);
}

// Probabilities 0.1, 0.4, 0.2, 0.3.
at::Tensor four_tokens() {
  return row({0.1f, 0.4f, 0.2f, 0.3f}).log();
}

TEST(Sample, GreedyTakesTheLowestOfEqualIds) {
  const auto logits = at::tensor({0.f, 3.f, 3.f, 1.f, 5.f, -1.f, 5.f, 5.f}).view({2, 4});
  expect_equal("ids", draw_rows(logits, {}, {0, 0}), at::tensor({1, 0}, at::kLong));
  expect_equal("bf16", draw_rows(logits.to(at::kBFloat16), {}, {0, 0}),
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

// Beside plain loops, for vocabularies around a word's size.
TEST(Sample, AMaskLeavesWhatItAllows) {
  for (const int64_t vocabulary : {1, 31, 32, 33, 100}) {
    const auto logits = random_tensor({4, vocabulary}, vocabulary);
    const std::vector<int64_t> rows = {0, 2, 3};
    const auto allowed =
        at::randint(std::numeric_limits<int32_t>::min(), std::numeric_limits<int32_t>::max(),
                    {3, mask_words(vocabulary)}, at::kInt);
    auto expected = logits.clone();
    for (int64_t r = 0; r < 3; ++r) {
      for (int64_t token = 0; token < vocabulary; ++token) {
        const auto word = static_cast<uint32_t>(allowed[r][token / 32].item<int32_t>());
        if ((word >> (token % 32) & 1) == 0) {
          expected[rows[static_cast<size_t>(r)]][token] = -std::numeric_limits<float>::infinity();
        }
      }
    }
    expect_equal("some rows", mask_logits(logits, rows, allowed), expected);
    const auto three = logits.index_select(0, at::tensor(rows, at::kLong));
    expect_equal("all rows", mask_logits(three, std::vector<int64_t>{0, 1, 2}, allowed),
                 expected.index_select(0, at::tensor(rows, at::kLong)));
    EXPECT_THROW(mask_logits(logits, rows, allowed.to(at::kLong)), Error);
  }
}

TEST(Sample, MinPKeepsWhatIsNearTheMostLikely) {
  const SampleArgs args{.temperature = 1, .min_p = 0.6};  // of 0.4: 0.24, so 0.4 and 0.3
  EXPECT_EQ(draw(four_tokens(), args, 0.56f), 1);
  EXPECT_EQ(draw(four_tokens(), args, 0.9999f), 3);
  const SampleArgs one{.temperature = 1, .min_p = 1};
  EXPECT_EQ(draw(four_tokens(), one, 0.9999f), 1);
  const SampleArgs stricter{.temperature = 1, .top_p = 0.3, .min_p = 0.6};
  EXPECT_EQ(draw(four_tokens(), stricter, 0.9999f), 1);
}

int64_t greedy_with(const at::Tensor& logits, const SampleArgs& args, const TokenCounts& counts) {
  const SampleRow rows[] = {{&args, 0, &counts}};
  return sample_tokens(logits, rows).item<int64_t>();
}

TEST(Sample, PenaltiesAreOfTokensThatWereThere) {
  const auto logits = row({2, 3, 1, -1});
  const TokenCounts prompt{{1, {.in_prompt = true}}}, answer{{1, {.in_answer = 3}}};
  EXPECT_EQ(greedy_with(logits, {.repetition_penalty = 1.4}, prompt), 1);
  EXPECT_EQ(greedy_with(logits, {.repetition_penalty = 1.6}, prompt), 0);
  EXPECT_EQ(greedy_with(logits, {.repetition_penalty = 1.6}, answer), 0);
  EXPECT_EQ(greedy_with(logits, {.presence_penalty = 1.5}, prompt), 1);  // of the answer alone
  EXPECT_EQ(greedy_with(logits, {.presence_penalty = 0.9}, answer), 1);
  EXPECT_EQ(greedy_with(logits, {.presence_penalty = 1.1}, answer), 0);
  EXPECT_EQ(greedy_with(logits, {.frequency_penalty = 0.3}, answer), 1);
  EXPECT_EQ(greedy_with(logits, {.frequency_penalty = 0.4}, answer), 0);
  EXPECT_EQ(greedy_with(logits, {.frequency_penalty = 9}, prompt), 1);
  // A negative logit becomes more so.
  const TokenCounts last{{1, {.in_prompt = true}}};
  EXPECT_EQ(greedy_with(row({-1.5f, -1}), {.repetition_penalty = 2}, last), 0);
  EXPECT_THROW(draw(logits, {.presence_penalty = 1}, 0), std::exception);
}

TEST(Sample, BiasIsAddedWhetherATokenWasThereOrNot) {
  const auto logits = row({2, 3, 1, -1});
  EXPECT_EQ(draw(logits, {.logit_bias = {{3, 4.5}}}, 0), 3);
  EXPECT_EQ(draw(logits, {.logit_bias = {{1, -std::numeric_limits<double>::infinity()}}}, 0), 0);
  const TokenCounts there{{3, {.in_answer = 1}}};
  EXPECT_EQ(greedy_with(logits, {.presence_penalty = 1, .logit_bias = {{3, 4.5}}}, there), 1);
  EXPECT_EQ(greedy_with(logits, {.presence_penalty = 1, .logit_bias = {{3, 5.5}}}, there), 3);
  expect_equal("the logits stay", logits, row({2, 3, 1, -1}));
}

TEST(Sample, RowsDoNotDependOnTheirNeighbours) {
  const auto logits = random_tensor({9, 501}, 1) * 3;
  const TokenCounts counts{{4, {true, 2}}, {400, {false, 1}}};
  std::vector<SampleArgs> args(9, {.temperature = 0.8, .top_p = 0.9, .top_k = 50});
  args[1] = {};
  args[3] = {.temperature = 2, .min_p = 0.1};
  args[4] = {.temperature = 1, .top_k = 3, .frequency_penalty = 5, .logit_bias = {{7, 3}}};
  args[6] = {.logit_bias = {{11, 30}}};
  std::vector<SampleRow> rows;
  for (size_t s = 0; s < 9; ++s) {
    rows.push_back({&args[s], static_cast<float>(s) / 9, &counts});
  }
  const auto all = sample_tokens(logits, rows);
  for (int64_t s = 0; s < 9; ++s) {
    expect_equal("row", sample_tokens(logits.narrow(0, s, 1), std::span(rows).subspan(s, 1)),
                 all.narrow(0, s, 1));
  }
}

TEST(Sample, LogprobsAreTheModelsOwn) {
  const auto logits = at::cat({four_tokens() + 5, four_tokens()});
  const TokenLogprobs got = token_logprobs(logits, std::vector<int64_t>{2, 1}, 2);
  EXPECT_NEAR(got.chosen[0], std::log(0.2), 1e-6);
  EXPECT_NEAR(got.chosen[1], std::log(0.4), 1e-6);
  ASSERT_EQ(got.top[0].size(), 2u);
  EXPECT_EQ(got.top[0][0].token, 1);
  EXPECT_NEAR(got.top[0][1].logprob, std::log(0.3), 1e-6);
  EXPECT_EQ(got.top[0][1].token, 3);
  EXPECT_EQ(token_logprobs(logits, std::vector<int64_t>{2, 1}, 9).top[0].size(), 4u);
  EXPECT_TRUE(token_logprobs(logits, std::vector<int64_t>{2, 1}, 0).top[1].empty());
}

TEST(Sample, FrequenciesFollowTheProbabilities) {
  const int64_t draws = 10'000;
  std::vector<float> uniforms;
  for (int64_t i = 0; i < draws; ++i) {
    uniforms.push_back((static_cast<float>(i) + 0.5f) / static_cast<float>(draws));
  }
  const auto ids = draw_rows(four_tokens().expand({draws, 4}), {.temperature = 1}, uniforms);
  const auto counts = at::bincount(ids, {}, 4);
  expect_equal("counts", counts, at::tensor({1000, 4000, 2000, 3000}, at::kLong));
}

TEST(Sample, RefusesWrongSettings) {
  EXPECT_THROW(draw(four_tokens(), {.temperature = 1, .top_p = 0}, 0.5f), Error);
  EXPECT_THROW(draw(four_tokens(), {.temperature = -1}, 0.5f), Error);
  EXPECT_THROW(draw(four_tokens(), {.min_p = 1.5}, 0), Error);
  EXPECT_THROW(draw(four_tokens(), {.repetition_penalty = 0}, 0), Error);
  EXPECT_THROW(draw(four_tokens(), {.logit_bias = {{4, 1}}}, 0), Error);
  EXPECT_THROW(draw_rows(four_tokens(), {.temperature = 1}, {0, 0}), std::exception);
}

// Logits as models have them, and those that are hard on a histogram: many equal ones, all equal,
// far apart, few.
std::vector<at::Tensor> logits_to_draw_from() {
  const float never = -std::numeric_limits<float>::infinity();
  std::vector<at::Tensor> all;
  for (const int64_t vocabulary : {1, 2, 33, 4096, 151'936}) {
    const auto logits = random_tensor({6, vocabulary}, 7 * vocabulary);
    for (const double width : {0.0, 1e-3, 2.5, 300.0}) all.push_back(logits * width);
    all.push_back((logits * 2).to(at::kBFloat16).to(at::kFloat));
    all.push_back((logits * 2).round());
    all.push_back(
        (logits * 2).masked_fill(logits.lt(1.5) & logits.lt(logits.amax(1, true)), never));
  }
  return all;
}

// The kernel's draws are those in fp64, but where a step of the running sum lies so close that
// either side of it would do: the masses are rounded to 1.2e-7 and quantised to 2^-45.
TEST(SampleCuda, DrawsAreThoseOfSortedRows) {
  HALO_NEEDS_GPU();
  const test::CudaKernelsSetting all("all");
  constexpr double kClose = 1e-6;
  const std::vector<SampleArgs> settings = {
      {},
      {.temperature = 1},
      {.temperature = 0.05},
      {.temperature = 8, .top_p = 0.95},
      {.temperature = 0.7, .top_k = 40},
      {.temperature = 1, .min_p = 0.02},
      {.temperature = 1.3, .top_p = 0.8, .top_k = 3000},
      {.temperature = 0.9, .top_p = 1e-9},
      {.temperature = 1, .top_p = 0.9, .top_k = 50, .min_p = 0.05}};
  int64_t draws = 0, other_side = 0;
  for (const at::Tensor& logits : logits_to_draw_from()) {
    for (size_t a = 0; a < settings.size(); ++a) {
      const SampleArgs& args = settings[a];
      std::vector<float> uniforms;
      for (int64_t r = 0; r < logits.size(0); ++r)
        uniforms.push_back(static_cast<float>((a * 6 + r) * 2'654'435'761 % (1 << 24)) * 0x1p-24f);
      uniforms[0] = 0;
      uniforms[1] = 0x1.fffffep-1f;
      const auto expected = draw_rows(logits, args, uniforms);
      const auto got = draw_rows(logits.to(at::kCUDA), args, uniforms).cpu();
      draws += logits.size(0);
      for (int64_t r = 0; r < logits.size(0); ++r) {
        const int64_t token = got[r].item<int64_t>();
        if (token == expected[r].item<int64_t>()) continue;
        ++other_side;
        bool close = false;
        for (const double shift : {-kClose, 0.0, kClose}) {
          for (const double factor : {1 - kClose, 1 + kClose}) {
            SampleArgs near = args;
            near.top_p = std::min(1.0, args.top_p * factor);
            near.min_p = std::min(1.0, args.min_p * factor);
            const auto u = static_cast<float>(std::clamp(uniforms[r] + shift, 0.0, 1 - 0x1p-24));
            close |= draw(logits.narrow(0, r, 1), near, u) == token;
          }
        }
        EXPECT_TRUE(close) << "token " << token << " for " << expected[r].item<int64_t>()
                           << ", vocabulary " << logits.size(1) << ", settings " << a << ", row "
                           << r;
      }
    }
  }
  EXPECT_LE(other_side, draws / 100);
}

TEST(SampleCuda, ARowsTokenDependsOnNoOtherRow) {
  HALO_NEEDS_GPU();
  const test::CudaKernelsSetting all("all");
  const auto logits = (random_tensor({64, 49'152}, 3) * 2).to(at::kCUDA);
  const SampleArgs args{.temperature = 1.1, .top_p = 0.98};
  std::vector<float> uniforms;
  for (int64_t r = 0; r < 64; ++r) uniforms.push_back(static_cast<float>(r) / 64);
  const auto together = draw_rows(logits, args, uniforms).cpu();
  for (int64_t r = 0; r < 64; ++r) {
    EXPECT_EQ(draw(logits.narrow(0, r, 1), args, uniforms[static_cast<size_t>(r)]),
              together[r].item<int64_t>());
  }
}

}  // namespace
}  // namespace halo
