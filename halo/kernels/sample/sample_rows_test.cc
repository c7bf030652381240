#include "halo/kernels/sample/sample_rows.h"

#include <algorithm>

#include "halo/base/check.h"
#include "halo/base/random.h"
#include "tests/gpu.h"
#include "tests/op_check.h"

namespace halo {
namespace {

using test::expect_equal;
using test::random_tensor;

constexpr int64_t kKey = 0x123456789abcdef, kStep = -3;

struct Settings {
  double temperature = 1, top_p = 1, min_p = 0;
  int64_t top_k = 0;
};

// The same settings for every row; row r draws number first + r of one stream.
SampleRows rows_of(const Settings& s, int64_t count, int64_t first = 0) {
  SampleRows rows;
  rows.temperature = at::full({count}, s.temperature, at::kFloat);
  rows.top_p = at::full({count}, s.top_p, at::kFloat);
  rows.min_p = at::full({count}, s.min_p, at::kFloat);
  rows.top_k = at::full({count}, s.top_k, at::kLong);
  rows.streams = at::tensor({kKey, kStep}, at::kLong).expand({count, 2}).contiguous();
  rows.positions = at::arange(first, first + count, at::kLong);
  return rows;
}

SampleRows to(const SampleRows& rows, at::Device device) {
  return {rows.temperature.to(device), rows.top_p.to(device),   rows.min_p.to(device),
          rows.top_k.to(device),       rows.streams.to(device), rows.positions.to(device)};
}

double uniform(int64_t position) {
  const auto bits =
      philox4x32({static_cast<uint32_t>(position), 0, static_cast<uint32_t>(kStep), 0xffffffffu},
                 {static_cast<uint32_t>(kKey), static_cast<uint32_t>(kKey >> 32)});
  return (bits[1] >> 8) * 0x1p-24;
}

// Expects the token of the inverse distribution function over falling logits, in fp64, but for what
// fp32 exponentials may move a bound by.
void expect_sampled(const at::Tensor& logits, const Settings& s, const SampledRows& got,
                    int64_t first = 0) {
  const auto [sorted, ids] =
      logits.to(at::kDouble).sort(/*stable=*/true, /*dim=*/1, /*descending=*/true);
  const int64_t columns = logits.size(1);
  const double kSlack = 1e-5;
  for (int64_t r = 0; r < logits.size(0); ++r) {
    SCOPED_TRACE(r);
    const at::Tensor p =
        ((sorted[r] - sorted[r][0]) / (s.temperature > 0 ? s.temperature : 1)).exp();
    const at::Tensor sums = p.cumsum(0);
    const auto through = sums.accessor<double, 1>(), each = p.accessor<double, 1>();
    int64_t kept = s.top_k > 0 ? std::min(s.top_k, columns) : columns;
    while (kept > 1 && each[kept - 1] < s.min_p) --kept;
    const double wanted = s.top_p * through[kept - 1];
    kept = std::lower_bound(through.data(), through.data() + kept, wanted) - through.data() + 1;
    const double target = uniform(first + r) * through[kept - 1];
    const int64_t token = got.tokens[r].item<int64_t>();
    const int64_t place = ids[r].eq(token).nonzero().item<int64_t>();
    const double slack = kSlack * through[columns - 1];
    if (s.temperature == 0) {
      EXPECT_EQ(place, 0);
    } else {
      EXPECT_LE(through[place] - each[place], target + slack);
      EXPECT_GE(through[place], target - slack);
      EXPECT_LE(place, kept + 1);
    }
    EXPECT_NEAR(got.log_probabilities[r].item<double>(),
                at::log_softmax(logits[r].to(at::kDouble), 0)[token].item<double>(), 1e-4);
  }
}

const std::vector<Settings> kSettings{
    {.temperature = 0},
    {},
    {.temperature = 0.3},
    {.temperature = 1.5, .top_k = 40},
    {.temperature = 0.8, .top_p = 0.9},
    {.temperature = 1, .min_p = 0.05},
    {.temperature = 0.9, .top_p = 0.7, .min_p = 0.01, .top_k = 100},
    {.temperature = 1, .top_p = 1e-9},
    {.temperature = 1, .top_k = 1}};

// Rows of many sizes and shapes: spread, flat, with ties, one token, impossible tokens.
std::vector<at::Tensor> logits_of_many_kinds() {
  at::Tensor impossible = random_tensor({3, 500}, 4);
  impossible.slice(1, 100).fill_(-std::numeric_limits<float>::infinity());
  return {random_tensor({4, 3000}, 1) * 3,
          at::full({3, 2500}, 1.5),
          (random_tensor({3, 5000}, 2) * 2).to(at::kBFloat16).to(at::kFloat),
          at::full({2, 1}, -3.0),
          impossible,
          random_tensor({2, 1500}, 3) * 1e-3};
}

void check_all(at::Device device) {
  for (const Settings& s : kSettings) {
    SCOPED_TRACE(fmt::format("temperature {} top_p {} min_p {} top_k {}", s.temperature, s.top_p,
                             s.min_p, s.top_k));
    for (const at::Tensor& logits : logits_of_many_kinds()) {
      const SampleRows rows = to(rows_of(s, logits.size(0), 11), device);
      const SampledRows got = sample_rows(logits.to(device), rows);
      expect_sampled(logits, s, {got.tokens.cpu(), got.log_probabilities.cpu()}, 11);
    }
  }
}

TEST(SampleRows, FollowTheSettings) {
  check_all(at::kCPU);
}

TEST(SampleRows, GreedyTakesTheLowestOfEqualIds) {
  const auto logits = at::tensor({0.f, 3.f, 3.f, 1.f, 5.f, -1.f, 5.f, 5.f}).view({2, 4});
  expect_equal("ids", sample_rows(logits, rows_of({.temperature = 0}, 2)).tokens,
               at::tensor({1, 0}, at::kLong));
}

// Chi-squared would hide a wrong token of small probability: the counts are those of the uniforms.
TEST(SampleRows, FrequenciesFollowTheProbabilities) {
  constexpr int64_t kDraws = 4000;
  const auto logits = at::tensor({0.1f, 0.4f, 0.2f, 0.3f}).log().expand({kDraws, 4}).contiguous();
  const auto tokens = sample_rows(logits, rows_of({}, kDraws)).tokens;
  at::Tensor want = at::zeros({4}, at::kLong);
  for (int64_t r = 0; r < kDraws; ++r) {
    const double u = uniform(r);
    want[u < 0.4 ? 1 : u < 0.7 ? 3 : u < 0.9 ? 2 : 0] += 1;
  }
  const auto counts = at::bincount(tokens, {}, 4);
  EXPECT_LE((counts - want).abs().max().item<int64_t>(), 1);
  EXPECT_NEAR(static_cast<double>(counts[1].item<int64_t>()) / kDraws, 0.4, 0.04);
}

TEST(SampleRows, RefuseWrongShapes) {
  SampleRows rows = rows_of({}, 2);
  EXPECT_THROW(sample_rows(at::zeros({3, 4}), rows), Error);
  EXPECT_THROW(sample_rows(at::zeros({2, 4}, at::kDouble), rows), Error);
}

TEST(SampleRowsCuda, FollowTheSettings) {
  HALO_NEEDS_GPU();
  const test::CudaKernelsSetting all("all");
  check_all(at::kCUDA);
}

// A whole vocabulary, twice, and rows alone.
TEST(SampleRowsCuda, LongRowsDependOnNothingElse) {
  HALO_NEEDS_GPU();
  const test::CudaKernelsSetting all("all");
  const at::Tensor logits = random_tensor({6, 151'936}, 5) * 2.5;
  const Settings s{.temperature = 0.9, .top_p = 0.95, .min_p = 0, .top_k = 5000};
  const SampleRows rows = to(rows_of(s, 6), at::kCUDA);
  const at::Tensor there = logits.to(at::kCUDA);
  const SampledRows got = sample_rows(there, rows);
  expect_sampled(logits, s, {got.tokens.cpu(), got.log_probabilities.cpu()});
  expect_equal("again", sample_rows(there, rows).tokens.cpu(), got.tokens.cpu());
  for (int64_t r = 0; r < 6; ++r) {
    const SampleRows one = to(rows_of(s, 1, r), at::kCUDA);
    expect_equal("alone", sample_rows(there.narrow(0, r, 1), one).tokens.cpu(),
                 got.tokens.narrow(0, r, 1).cpu());
  }
}

}  // namespace
}  // namespace halo
