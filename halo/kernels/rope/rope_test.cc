#include "halo/kernels/rope/rope.h"

#include <cmath>

#include "halo/base/check.h"
#include "tests/gradient_check.h"

namespace halo {
namespace {

using namespace test;

constexpr double kEps = 1e-6;

std::vector<double> frequencies(int64_t d) {
  std::vector<double> out;
  for (int64_t i = 0; i < d / 2; ++i) out.push_back(std::pow(1e4, -2.0 * i / d));
  return out;
}

TEST(RopeTables, ExactAtAMillion) {
  const std::vector<double> inv_freq = frequencies(64);
  const at::Tensor positions = at::tensor({0, 1, 177, 999983, 1048575}, at::kLong);
  const RopeTables tables = rope_tables(positions, at::tensor(inv_freq, at::kDouble));
  ASSERT_EQ(tables.cos.scalar_type(), at::kFloat);
  for (int64_t n = 0; n < positions.size(0); ++n) {
    for (size_t i = 0; i < inv_freq.size(); ++i) {
      const long double angle =
          static_cast<long double>(positions[n].item<int64_t>()) * inv_freq[i];
      EXPECT_NEAR(tables.cos[n][i].item<float>(), std::cos(angle), 1e-7);
      EXPECT_NEAR(tables.sin[n][i].item<float>(), std::sin(angle), 1e-7);
    }
  }
}

TEST(LogPositionScale, KnownValues) {
  const at::Tensor scale =
      log_position_scale(at::tensor({0, 512, 16384, 131072, 1048576}, at::kLong), 500);
  EXPECT_EQ(scale.scalar_type(), at::kFloat);
  EXPECT_EQ(scale[0].item<float>(), 1.0f);
  const double known[] = {1, 1.113, 1.566, 1.897, 2.231};  // hypenet.md 1.1
  for (int i = 0; i < 5; ++i) EXPECT_NEAR(scale[i].item<float>(), known[i], 6e-4);
  EXPECT_THROW(log_position_scale(at::zeros({1}, at::kLong), 1), Error);
}

TEST(RopeTablesCuda, EqualThoseOfTheCpu) {
  HALO_NEEDS_GPU();
  const test::CudaKernelsSetting all("all");
  const at::Tensor positions = at::tensor({0, 1, 177, 999983, 1048575, (1 << 24) + 1}, at::kLong);
  const at::Tensor inv_freq = at::tensor(frequencies(128), at::kDouble);
  const test::PoisonUninitialized poison;
  const RopeTables want = rope_tables(positions, inv_freq),
                   got = rope_tables(positions.to(at::kCUDA), inv_freq.to(at::kCUDA));
  // fp64 on both sides: at most the last bit of fp32.
  EXPECT_LE((got.cos.cpu() - want.cos).abs().max().item<float>(), 0x1p-24f);
  EXPECT_LE((got.sin.cpu() - want.sin).abs().max().item<float>(), 0x1p-24f);
  const at::Tensor scale = log_position_scale(positions, 500),
                   on_gpu = log_position_scale(positions.to(at::kCUDA), 500);
  EXPECT_LE((on_gpu.cpu() - scale).abs().max().item<float>(), 0x1p-22f);
}

struct SplitOptions {
  HeadSplit split;
  bool norm, rope, scale;
};

// The formula of the header in plain operations.
std::vector<at::Tensor> plain_split(const SplitOptions& options, const at::Tensor& stacked,
                                    const std::vector<at::Tensor>& w, const RopeTables& tables,
                                    const at::Tensor& q_scale) {
  const auto [heads, kv_heads, d, has_gate, eps] = options.split;
  const auto type = stacked.scalar_type();
  const auto finish = [&, d = d, eps = eps](at::Tensor x, int64_t count, size_t which) {
    x = x.reshape({-1, count, d});
    if (options.norm) x = w[which] * (x * (x.square().mean(-1, true) + eps).rsqrt());
    if (!options.rope) return x;
    const at::Tensor cos = tables.cos.to(type).unsqueeze(1), sin = tables.sin.to(type).unsqueeze(1);
    const auto half = x.chunk(2, -1);
    return at::cat({half[0] * cos - half[1] * sin, half[1] * cos + half[0] * sin}, -1);
  };
  std::vector<int64_t> sizes = {heads * d, kv_heads * d, kv_heads * d};
  if (has_gate) sizes.push_back(heads * d);
  const auto parts = stacked.split_with_sizes(sizes, 1);
  at::Tensor q = finish(parts[0], heads, 0);
  if (options.scale) q = q * q_scale.to(type).view({-1, 1, 1});
  std::vector<at::Tensor> out = {q, finish(parts[1], kv_heads, 1),
                                 parts[2].reshape({-1, kv_heads, d}) * 1};
  if (has_gate) out.push_back(parts[3] * 1);
  return out;
}

std::vector<at::Tensor> as_list(const Heads& heads) {
  std::vector<at::Tensor> out = {heads.q, heads.k, heads.v};
  if (heads.gate.defined()) out.push_back(heads.gate);
  return out;
}

OperationCase split_case(const SplitOptions& options, int64_t n) {
  const HeadSplit split = options.split;
  const int64_t d = split.head_dim;
  const int64_t columns = ((split.has_gate ? 2 : 1) * split.heads + 2 * split.kv_heads) * d;
  const at::Tensor positions = at::arange(n, at::kLong) * 7919;
  const RopeTables tables = rope_tables(positions, at::tensor(frequencies(d), at::kDouble));
  const at::Tensor q_scale = log_position_scale(positions, 500);
  OperationCase c;
  c.inputs = {random_tensor({n, columns}, 1) * 2};
  if (options.norm) c.weights = {random_tensor({d}, 2), random_tensor({d}, 3)};
  c.formula = [=](const auto& x, const auto& w) {
    return plain_split(options, x[0], w, tables, q_scale);
  };
  c.operation = [=](const auto& x, const auto& w) {
    const at::Device device = x[0].device();
    const RopeTables here{tables.cos.to(device), tables.sin.to(device)};
    return as_list(split_heads(x[0], split, options.norm ? w[0] : Weight{},
                               options.norm ? w[1] : Weight{},
                               options.rope ? std::optional(here) : std::nullopt,
                               options.scale ? std::optional(q_scale.to(device)) : std::nullopt));
  };
  return c;
}

void check_split(const SplitOptions& options, int64_t n) {
  const OperationCase c = split_case(options, n);
  check_operation(c, at::kFloat);
  check_operation(c, at::kBFloat16);
}

TEST(SplitHeads, ForwardAndGradients) {
  for (int bits = 0; bits < 16; ++bits) {
    const bool gate = bits & 1, norm = bits & 2, rope = bits & 4, scale = bits & 8;
    SCOPED_TRACE(::testing::Message()
                 << "gate " << gate << " norm " << norm << " rope " << rope << " scale " << scale);
    check_split({{4, 2, 32, gate, kEps}, norm, rope, scale}, 70);
  }
  check_split({{3, 3, 10, true, kEps}, true, true, true}, 1);
  check_split({{2, 1, 50, false, kEps}, true, true, true}, 5);
}

// Head sizes of one lane to sixteen, more heads than a block holds at once, more tokens than blocks
// in backward, and sizes that have no kernel.
TEST(SplitHeadsCuda, ForwardAndGradients) {
  HALO_NEEDS_GPU();
  for (int bits = 0; bits < 16; ++bits) {
    const bool gate = bits & 1, norm = bits & 2, rope = bits & 4, scale = bits & 8;
    SCOPED_TRACE(::testing::Message()
                 << "gate " << gate << " norm " << norm << " rope " << rope << " scale " << scale);
    test::check_on_gpu(split_case({{4, 2, 64, gate, kEps}, norm, rope, scale}, 70));
  }
  test::check_on_gpu(split_case({{16, 8, 128, true, kEps}, true, true, true}, 1100));
  test::check_on_gpu(split_case({{40, 3, 128, true, kEps}, true, true, false}, 9));
  test::check_on_gpu(split_case({{3, 3, 16, true, kEps}, true, true, true}, 1));
  test::check_on_gpu(split_case({{2, 1, 256, false, kEps}, true, true, true}, 5));
  test::check_on_gpu(split_case({{2, 1, 50, false, kEps}, true, true, true}, 5));
}

TEST(SplitHeadsCuda, LongSequence) {
  HALO_NEEDS_GPU();
  test::check_on_gpu(split_case({{2, 1, 64, true, kEps}, true, true, true}, test::kManyRows));
}

// Against split_heads, whose results go to rows 5, nowhere, and 2 of a store that keeps the rest.
void check_store(at::Device device, at::ScalarType dtype, bool int8) {
  const HeadSplit split{4, 2, 64, true, kEps};
  const auto make = [&](at::IntArrayRef shape, uint64_t seed) {
    return random_tensor(shape, seed, dtype).to(device);
  };
  const at::Tensor stacked = make({3, 12 * 64}, 1);
  const Weight q_norm{make({64}, 2), {}}, k_norm{make({64}, 3), {}};
  const at::Tensor positions = at::tensor({7, 0, 100'000}, at::kLong);
  const RopeTables on_host = rope_tables(positions, at::tensor(frequencies(64), at::kDouble));
  const RopeTables tables{on_host.cos.to(device), on_host.sin.to(device)};
  const at::Tensor scale = log_position_scale(positions, 500).to(device);
  HeadStore store{{make({3, 2, 2, 64}, 4), make({3, 2, 2, 64}, 5)},
                  at::tensor({5, -1, 2}, at::kLong).to(device)};
  if (int8) {
    store.keys = store.keys.mul(20).to(at::kChar);
    store.values = store.values.mul(20).to(at::kChar);
    store.key_scales = random_tensor({3, 2, 2}, 6).to(device);
    store.value_scales = random_tensor({3, 2, 2}, 7).to(device);
  }
  const Heads want = split_heads(stacked, split, q_norm, k_norm, tables, scale);
  const KeyValueBlocks blocks{store.keys.clone(), store.values.clone(),
                              int8 ? store.key_scales.clone() : at::Tensor(),
                              int8 ? store.value_scales.clone() : at::Tensor()};
  const at::Tensor taken = at::tensor({0, 2}, at::kLong).to(device);
  const at::Tensor rows = store.rows.index_select(0, taken);
  store_tokens(blocks.keys, blocks.key_scales, rows, want.k.index_select(0, taken));
  store_tokens(blocks.values, blocks.value_scales, rows, want.v.index_select(0, taken));
  const at::Tensor q = split_heads_store(stacked, split, q_norm, k_norm, tables, scale, store);
  test::expect_equal("q", q.cpu(), want.q.cpu());
  test::expect_equal("keys", store.keys.cpu(), blocks.keys.cpu());
  test::expect_equal("values", store.values.cpu(), blocks.values.cpu());
  if (int8) {
    test::expect_equal("key scales", store.key_scales.cpu(), blocks.key_scales.cpu());
    test::expect_equal("value scales", store.value_scales.cpu(), blocks.value_scales.cpu());
  }
  store.rows = store.rows.narrow(0, 0, 2);
  EXPECT_THROW(split_heads_store(stacked, split, q_norm, k_norm, tables, scale, store), Error);
}

TEST(SplitHeads, StoresKeysAndValues) {
  for (const bool int8 : {false, true}) {
    check_store(at::kCPU, at::kFloat, int8);
    check_store(at::kCPU, at::kBFloat16, int8);
  }
}

TEST(SplitHeadsCuda, StoresKeysAndValues) {
  HALO_NEEDS_GPU();
  const test::CudaKernelsSetting all("all");
  for (const bool int8 : {false, true}) {
    check_store(at::kCUDA, at::kFloat, int8);
    check_store(at::kCUDA, at::kBFloat16, int8);
  }
}

TEST(SplitHeads, OutputsAreContiguousAndMayBeUnused) {
  const HeadSplit split{2, 1, 8, true, kEps};
  const at::Tensor stacked = test::leaf(random_tensor({3, 48}, 1), at::kFloat);
  const Weight q_norm = test::trained_weight(random_tensor({8}, 2), at::kFloat);
  const Weight k_norm = test::trained_weight(random_tensor({8}, 3), at::kFloat);
  const test::PoisonUninitialized poison;
  const Heads heads = split_heads(stacked, split, q_norm, k_norm, std::nullopt, std::nullopt);
  for (const at::Tensor& part : as_list(heads)) EXPECT_TRUE(part.is_contiguous());
  heads.v.sum().backward();
  at::Tensor want = at::zeros({3, 48});
  want.narrow(1, 24, 8).fill_(1);
  test::expect_equal("only v", stacked.grad(), want);
  test::expect_equal("q_norm", q_norm.grad, at::zeros({8}));
  test::expect_equal("k_norm", k_norm.grad, at::zeros({8}));
}

TEST(SplitHeads, RefusesWrongShapes) {
  const HeadSplit split{2, 1, 8, false, kEps};
  EXPECT_THROW(split_heads(at::ones({3, 40}), split, {}, {}, std::nullopt, std::nullopt), Error);
  EXPECT_THROW(
      split_heads(at::ones({3, 32}), split, {at::ones({4}), {}}, {}, std::nullopt, std::nullopt),
      Error);
  const RopeTables short_tables{at::ones({2, 4}), at::ones({2, 4})};
  EXPECT_THROW(split_heads(at::ones({3, 32}), split, {}, {}, short_tables, std::nullopt), Error);
  EXPECT_THROW(split_heads(at::ones({3, 32}), split, {}, {}, std::nullopt, at::ones({2})), Error);
}

}  // namespace
}  // namespace halo
