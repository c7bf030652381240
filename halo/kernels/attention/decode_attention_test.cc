#include "halo/kernels/attention/decode_attention.h"

#include "halo/base/check.h"
#include "tests/gpu.h"
#include "tests/op_check.h"

namespace halo {
namespace {

using test::expect_close;
using test::expect_equal;
using test::random_tensor;

struct Case {
  std::vector<int64_t> lengths;  // of the sequences, the new tokens included
  int64_t tokens = 1;            // new ones a sequence
  int64_t heads = 4, kv_heads = 2, head_dim = 64, block_size = 16;
  bool int8 = false;  // keys and values
};

struct Inputs {
  at::Tensor q;
  DecodeCache cache;
};

int64_t blocks_of(const Case& c, int64_t sequence) {
  return (c.lengths[sequence] + c.block_size - 1) / c.block_size;
}

// The sequences' blocks in a row of the table each, dealt out in turn from the last one down;
// behind a sequence's own the table names block 0, which is nobody's.
at::Tensor deal_blocks(const Case& c, int64_t& blocks) {
  const int64_t count = std::ssize(c.lengths);
  int64_t most = 1;
  for (int64_t s = 0; s < count; ++s) most = std::max(most, blocks_of(c, s));
  const at::Tensor table = at::zeros({count, most}, at::kInt);
  blocks = 1;
  for (int64_t b = most - 1; b >= 0; --b) {
    for (int64_t s = count - 1; s >= 0; --s) {
      if (b < blocks_of(c, s)) table[s][b] = blocks++;
    }
  }
  return table;
}

// What was never stored is NaN.
Inputs inputs_of(const Case& c) {
  const int64_t count = std::ssize(c.lengths);
  int64_t blocks = 0;
  Inputs x;
  x.cache.block_table = deal_blocks(c, blocks);
  x.q = random_tensor({count * c.tokens, c.heads, c.head_dim}, 1, at::kBFloat16);
  x.cache.lengths = at::tensor(c.lengths, at::kLong);
  x.cache.keys = random_tensor({blocks, c.block_size, c.kv_heads, c.head_dim}, 2, at::kBFloat16);
  x.cache.values = random_tensor(x.cache.keys.sizes(), 3, at::kBFloat16);
  if (c.int8) {
    const auto make_int8 = [](at::Tensor& pool, at::Tensor& scales) {
      const Int8Rows rounded = to_int8(pool);
      pool = rounded.values;
      scales = rounded.scales.transpose(1, 2).contiguous();
    };
    make_int8(x.cache.keys, x.cache.key_scales);
    make_int8(x.cache.values, x.cache.value_scales);
  }
  const auto poison = [&](int64_t block, int64_t stored) {
    const auto fill = [&](const at::Tensor& pool, int64_t tokens) {
      if (!pool.is_floating_point()) return;
      pool.select(0, block).slice(tokens, stored).fill_(std::numeric_limits<float>::quiet_NaN());
    };
    fill(x.cache.keys, 0);
    fill(x.cache.values, 0);
    if (!c.int8) return;
    fill(x.cache.key_scales, 1);
    fill(x.cache.value_scales, 1);
  };
  poison(0, 0);
  for (int64_t s = 0; s < count; ++s) {
    for (int64_t b = 0; b < blocks_of(c, s); ++b) {
      poison(x.cache.block_table[s][b].item<int64_t>(),
             std::min(c.lengths[s] - b * c.block_size, c.block_size));
    }
  }
  return x;
}

// [length, kv_heads, d] of sequence s in double.
at::Tensor stored(const at::Tensor& pool, const at::Tensor& scales, const DecodeCache& cache,
                  int64_t s) {
  const int64_t length = cache.lengths[s].item<int64_t>();
  const auto rows = [&](const at::Tensor& x) {
    return x.index_select(0, cache.block_table[s].to(at::kLong))
        .flatten(0, 1)
        .slice(0, 0, length)
        .to(at::kDouble);
  };
  if (!scales.defined()) return rows(pool);
  return rows(pool) * rows(scales.transpose(1, 2)).unsqueeze(2);
}

// The formula, plainly in `dtype`; rows of sequences that are not there are zero.
at::Tensor formula(const Case& c, const Inputs& x, double scale, at::ScalarType dtype) {
  at::Tensor o = at::zeros(x.q.sizes(), x.q.options().dtype(dtype));
  for (int64_t s = 0; s < std::ssize(c.lengths); ++s) {
    if (c.lengths[s] == 0) continue;
    const auto k = stored(x.cache.keys, x.cache.key_scales, x.cache, s).to(dtype);
    const auto v = stored(x.cache.values, x.cache.value_scales, x.cache, s).to(dtype);
    for (int64_t i = 0; i < c.tokens; ++i) {
      const int64_t row = s * c.tokens + i, seen = c.lengths[s] - c.tokens + i + 1;
      const auto q = x.q[row].to(dtype).view({c.kv_heads, -1, c.head_dim});
      const auto keys = k.slice(0, 0, seen).permute({1, 2, 0});
      const auto weights = at::softmax(q.matmul(keys) * scale, 2);
      o[row] = weights.matmul(v.slice(0, 0, seen).transpose(0, 1)).flatten(0, 1);
    }
  }
  return o;
}

// The rows of sequences that are there.
at::Tensor rows_here(const Case& c, const at::Tensor& o) {
  std::vector<at::Tensor> rows;
  for (int64_t s = 0; s < std::ssize(c.lengths); ++s) {
    if (c.lengths[s] > 0) rows.push_back(o.slice(0, s * c.tokens, (s + 1) * c.tokens));
  }
  return at::cat(rows).cpu();
}

Inputs to(const Inputs& x, at::Device device, at::ScalarType dtype) {
  const auto type = x.cache.is_int8() ? at::kChar : dtype;
  Inputs out{x.q.to(device, dtype),
             {{x.cache.keys.to(device, type), x.cache.values.to(device, type)},
              x.cache.block_table.to(device),
              x.cache.lengths.to(device)}};
  if (x.cache.is_int8()) {
    out.cache.key_scales = x.cache.key_scales.to(device);
    out.cache.value_scales = x.cache.value_scales.to(device);
  }
  return out;
}

at::Tensor attend(const Case& c, const Inputs& x, double scale, Kernels kernels) {
  const auto scratch =
      make_decode_scratch(std::ssize(c.lengths), c.tokens, c.heads, c.head_dim, x.q.device());
  return decode_attention(x.q, x.cache, scale, scratch, kernels);
}

// Blocks share out steps of 64 tokens, two or more each, in int8 of 128 and of two key heads where
// their number is even; a warp takes 16, or 32.
const std::vector<Case> kCases{
    {.lengths = {1}},
    {.lengths = {17, 0, 16, 1, 33, 0, 64, 65}},
    {.lengths = {127, 128, 129, 300},
     .heads = 16,
     .kv_heads = 8,
     .head_dim = 128,
     .block_size = 64},
    {.lengths = {1500}, .heads = 3, .kv_heads = 3, .head_dim = 128, .block_size = 256},
    {.lengths = {900, 5}, .heads = 9, .kv_heads = 3, .head_dim = 64, .block_size = 32},
    {.lengths = {700, 140}, .heads = 8, .kv_heads = 1, .head_dim = 128, .block_size = 128},
    {.lengths = {4, 130, 0, 19, 513}, .tokens = 4, .heads = 4, .kv_heads = 2, .head_dim = 128},
    {.lengths = {17, 0, 16, 1, 33, 0, 64, 65}, .block_size = 32, .int8 = true},
    {.lengths = {127, 128, 129, 300},
     .heads = 16,
     .kv_heads = 8,
     .head_dim = 128,
     .block_size = 64,
     .int8 = true},
    {.lengths = {900, 5}, .heads = 9, .kv_heads = 3, .block_size = 256, .int8 = true},
    {.lengths = {700, 140}, .heads = 5, .kv_heads = 1, .block_size = 64, .int8 = true},
    {.lengths = {4, 130, 0, 19, 513}, .tokens = 2, .head_dim = 128, .block_size = 32, .int8 = true},
    {.lengths = {4, 130, 0, 19, 513}, .tokens = 4, .head_dim = 128, .block_size = 32, .int8 = true},
    {.lengths = {40, 77}, .block_size = 16, .int8 = true},  // composed on a GPU
    // So many key heads that a block's range has several steps and sequences.
    {.lengths = {700, 0, 77, 257}, .heads = 33, .kv_heads = 33, .block_size = 32, .int8 = true},
    {.lengths = {513, 130},
     .tokens = 5,
     .heads = 64,
     .kv_heads = 64,
     .block_size = 32,
     .int8 = true},
    {.lengths = {513, 130},
     .tokens = 2,
     .heads = 256,
     .kv_heads = 64,
     .block_size = 32,
     .int8 = true}};

TEST(DecodeAttention, EqualsTheFormula) {
  for (const Case& c : kCases) {
    SCOPED_TRACE(fmt::format("{} sequences, {} / {} heads of {}", c.lengths.size(), c.heads,
                             c.kv_heads, c.head_dim));
    const Inputs x = inputs_of(c);
    const double scale = 1 / std::sqrt(c.head_dim);
    const at::Tensor want = formula(c, x, scale, at::kDouble);
    for (const auto dtype : {at::kFloat, at::kBFloat16}) {
      for (const auto kernels : {Kernels::kFast, Kernels::kReference}) {
        expect_close("o", rows_here(c, attend(c, to(x, at::kCPU, dtype), scale, kernels)),
                     rows_here(c, want), rows_here(c, formula(c, x, scale, dtype)));
      }
    }
  }
}

void check_newest_rows(at::Device device) {
  DecodeCache cache;
  cache.keys = cache.values = at::zeros({9, 4, 1, 2}, device);
  cache.block_table = at::tensor({7, 3, 8, 0, 0, 0, 5, 6, 1}, at::kInt).view({3, 3}).to(device);
  cache.lengths = at::tensor({9, 0, 5}, at::kLong).to(device);
  expect_equal("one", newest_rows(cache, 1).cpu(), at::tensor({32, -1, 24}, at::kLong));
  expect_equal("three", newest_rows(cache, 3).cpu(),
               at::tensor({14, 15, 32, -1, -1, -1, 22, 23, 24}, at::kLong));
}

TEST(DecodeAttention, NewestRows) {
  check_newest_rows(at::kCPU);
}

TEST(DecodeAttentionCuda, NewestRows) {
  HALO_NEEDS_GPU();
  const test::CudaKernelsSetting all("all");
  check_newest_rows(at::kCUDA);
}

TEST(DecodeAttention, RefusesAWrongTable) {
  const Case c{.lengths = {17, 3}};
  Inputs x = inputs_of(c);
  x.cache.block_table = x.cache.block_table.to(at::kLong);
  EXPECT_THROW(attend(c, x, 1, Kernels::kFast), Error);
}

TEST(DecodeAttentionCuda, EqualsTheFormula) {
  HALO_NEEDS_GPU();
  const test::CudaKernelsSetting all("all");
  for (const Case& c : kCases) {
    SCOPED_TRACE(fmt::format("{} sequences, {} / {} heads of {}", c.lengths.size(), c.heads,
                             c.kv_heads, c.head_dim));
    const Inputs x = inputs_of(c);
    const double scale = 1 / std::sqrt(c.head_dim);
    const Inputs on_gpu = to(x, at::kCUDA, at::kBFloat16);
    const test::PoisonUninitialized poison;
    expect_close("o", rows_here(c, attend(c, on_gpu, scale, Kernels::kFast)),
                 rows_here(c, formula(c, x, scale, at::kDouble)),
                 rows_here(c, formula(c, x, scale, at::kBFloat16)));
  }
}

// Ranges that end inside of sequences, at their ends, and hold several; one scratch again and
// again.
TEST(DecodeAttentionCuda, SharesOutManySequences) {
  HALO_NEEDS_GPU();
  const test::CudaKernelsSetting all("all");
  Case c{.lengths = {}, .heads = 16, .kv_heads = 8, .head_dim = 128, .block_size = 64};
  for (int64_t s = 0; s < 150; ++s)
    c.lengths.push_back(s % 30 == 7 ? 4000 + s : s % 4 == 3 ? 0 : s % 4 == 1 ? 128 : 3 * s + 1);
  for (const bool int8 : {false, true}) {
    c.int8 = int8;
    const Inputs x = inputs_of(c), there = to(x, at::kCUDA, at::kBFloat16);
    const double scale = 1 / std::sqrt(c.head_dim);
    const auto scratch =
        make_decode_scratch(std::ssize(c.lengths), 1, c.heads, c.head_dim, at::kCUDA);
    const auto attended = [&] {
      return rows_here(c, decode_attention(there.q, there.cache, scale, scratch, Kernels::kFast));
    };
    const at::Tensor first = attended();
    expect_close("o", first, rows_here(c, formula(c, there, scale, at::kDouble)),
                 rows_here(c, formula(c, there, scale, at::kBFloat16)));
    for (int i = 0; i < 3; ++i) expect_equal("again", attended(), first);
  }
}

// Offsets beyond 32 bits.
void check_long(bool int8) {
  constexpr int64_t kLength = (int64_t{1} << 20) + 77, kHeads = 16, kGroups = 8, kDim = 128;
  const auto options = at::TensorOptions().device(at::kCUDA).dtype(at::kBFloat16);
  // More than 2^32 bytes.
  const int64_t blocks = (kLength / 256 + 1 + (int64_t{1} << 13)) * (int8 ? 2 : 1);
  DecodeCache cache;
  cache.keys = at::randn({blocks, 256, kGroups, kDim}, options);
  cache.values = at::randn(cache.keys.sizes(), options);
  if (int8) {
    cache.keys = cache.keys.mul_(30).to(at::kChar);
    cache.values = cache.values.mul_(30).to(at::kChar);
    cache.key_scales = at::rand({blocks, kGroups, 256}, options.dtype(at::kFloat)) / 20;
    cache.value_scales = at::rand(cache.key_scales.sizes(), options.dtype(at::kFloat)) / 20;
  }
  cache.block_table = at::arange(blocks, options.dtype(at::kInt)).flip(0).unsqueeze(0).contiguous();
  const at::Tensor q = at::randn({1, kHeads, kDim}, options) * 4;
  for (const int64_t length : {kLength, int64_t{100'000}}) {
    cache.lengths = at::tensor({length}, at::kLong).to(at::kCUDA);
    const auto scratch = make_decode_scratch(1, 1, kHeads, kDim, at::kCUDA);
    const double scale = 1 / std::sqrt(kDim);
    const at::Tensor got = decode_attention(q, cache, scale, scratch, Kernels::kFast);
    const auto rows = cache.block_table[0].to(at::kLong).slice(0, 0, length / 256 + 1);
    for (int64_t g = 0; g < kGroups; ++g) {
      const auto of = [&](const at::Tensor& pool, const at::Tensor& scales) {
        const auto numbers =
            pool.select(2, g).index_select(0, rows).flatten(0, 1).slice(0, 0, length);
        if (!int8) return numbers.to(at::kDouble);
        return numbers.to(at::kDouble) * scales.select(1, g)
                                             .index_select(0, rows)
                                             .flatten()
                                             .slice(0, 0, length)
                                             .to(at::kDouble)
                                             .unsqueeze(1);
      };
      const auto heads = q[0].slice(0, g * 2, g * 2 + 2);
      const auto attended = [&](at::ScalarType dtype) {
        const auto k = of(cache.keys, cache.key_scales), v = of(cache.values, cache.value_scales);
        const auto weights = at::softmax(heads.to(dtype).matmul(k.to(dtype).t()) * scale, 1);
        return weights.matmul(v.to(dtype)).cpu();
      };
      expect_close("o", got[0].slice(0, g * 2, g * 2 + 2).cpu(), attended(at::kDouble),
                   attended(at::kBFloat16));
    }
  }
}

TEST(DecodeAttentionCuda, TakesTheShapesThatItSays) {
  HALO_NEEDS_GPU();
  const test::CudaKernelsSetting all("all");
  const auto takes = [](DecodeShape shape, at::ScalarType type = at::kBFloat16) {
    return has_decode_attention_kernel(at::empty({1}, at::device(at::kCUDA).dtype(type)), shape);
  };
  EXPECT_TRUE(takes({.rows = 8, .head_dim = 64, .block_size = 16}));
  EXPECT_FALSE(takes({.rows = 8, .head_dim = 64, .block_size = 16, .int8 = true}));
  EXPECT_FALSE(takes({.rows = 9, .head_dim = 64, .block_size = 16}));
  EXPECT_FALSE(takes({.rows = 8, .head_dim = 96, .block_size = 16}));
  EXPECT_FALSE(takes({.rows = 8, .head_dim = 64, .block_size = 48}));
  EXPECT_FALSE(takes({.rows = 8, .head_dim = 64, .block_size = 16}, at::kFloat));
  const bool hopper = compute_capability(at::empty({1}, at::kCUDA)) >= 9;
  EXPECT_EQ(takes({.rows = 8, .head_dim = 128, .block_size = 32, .int8 = true}), hopper);
}

TEST(DecodeAttentionCuda, LongSequence) {
  HALO_NEEDS_GPU();
  const test::CudaKernelsSetting all("all");
  for (const bool int8 : {false, true}) check_long(int8);
}

}  // namespace
}  // namespace halo
