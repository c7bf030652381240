// Causal and paged attention against the formula in fp64, and what packing, splitting and the
// layout of the blocks must not change.
#include "halo/kernels/attention/attention.h"

#include <limits>
#include <numeric>

#include "ATen/Parallel.h"
#include "halo/base/check.h"
#include "halo/kernels/attention/attention_forms.h"
#include "halo/kernels/attention/cudnn_backward.h"
#include "halo/kernels/common/sequences_testing.h"
#include "tests/gpu.h"
#include "tests/op_check.h"
#include "torch/csrc/autograd/autograd.h"

namespace halo {
namespace {

using namespace test;

constexpr int64_t kDim = 16;
constexpr double kScale = 0.3;

struct Inputs {
  at::Tensor q, k, v;
};

Inputs make_inputs(int64_t tokens, int64_t heads, int64_t groups, at::ScalarType dtype,
                   int64_t dim = kDim) {
  return {random_tensor({tokens, heads, dim}, 1, dtype),
          random_tensor({tokens, groups, dim}, 2, dtype),
          random_tensor({tokens, groups, dim}, 3, dtype)};
}

// softmax(scale q k^T + causal mask) v, each sequence alone.
at::Tensor formula(const Inputs& x, const Sequences& sequences) {
  const int64_t repeat = x.q.size(1) / x.k.size(1);
  std::vector<at::Tensor> parts;
  for (int64_t s = 0; s < sequences.count(); ++s) {
    const int64_t begin = sequences.offsets()[s], end = sequences.offsets()[s + 1];
    const auto q = x.q.slice(0, begin, end).transpose(0, 1);
    const auto k = x.k.slice(0, begin, end).repeat_interleave(repeat, 1).transpose(0, 1);
    const auto v = x.v.slice(0, begin, end).repeat_interleave(repeat, 1).transpose(0, 1);
    const auto hidden = at::ones({end - begin, end - begin}, at::kBool).triu(1);
    const auto logits = at::matmul(q, k.transpose(1, 2)) * kScale;
    const auto weights =
        logits.masked_fill(hidden, -std::numeric_limits<double>::infinity()).softmax(-1);
    parts.push_back(at::matmul(weights, v).transpose(0, 1));
  }
  return at::cat(parts);
}

struct Outcome {
  at::Tensor o;
  std::vector<at::Tensor> gradients;
};

template <class F>
Outcome run(const F& f, const Inputs& x, at::ScalarType dtype) {
  const Inputs leaves{leaf(x.q, dtype), leaf(x.k, dtype), leaf(x.v, dtype)};
  Outcome out{f(leaves), {}};
  const auto gradient = random_tensor(out.o.sizes(), 5, x.q.scalar_type()).to(dtype);
  out.gradients = torch::autograd::grad({out.o}, {leaves.q, leaves.k, leaves.v}, {gradient});
  return out;
}

void check_causal(const std::vector<int64_t>& lengths, int64_t heads, int64_t groups,
                  at::ScalarType dtype = at::kFloat, int64_t dim = kDim) {
  const test::PoisonUninitialized poison;
  const auto sequences = sequences_of(lengths);
  const auto x = make_inputs(sequences.num_tokens(), heads, groups, dtype, dim);
  const auto plain_formula = [&](const Inputs& y) { return formula(y, sequences); };
  const auto want = run(plain_formula, x, at::kDouble), plain = run(plain_formula, x, dtype);
  const char* names[] = {"dq", "dk", "dv"};
  for (const auto kernels : {Kernels::kFast, Kernels::kReference}) {
    SCOPED_TRACE(kernels == Kernels::kFast ? "fast" : "reference");
    const auto got = run(
        [&](const Inputs& y) {
          return causal_attention(y.q, y.k, y.v, sequences, {kScale, kernels});
        },
        x, dtype);
    EXPECT_EQ(got.o.scalar_type(), dtype);
    expect_close("o", got.o, want.o, plain.o);
    for (int i = 0; i < 3; ++i) {
      expect_close(names[i], got.gradients[i], want.gradients[i], plain.gradients[i]);
    }
  }
}

TEST(Attention, EqualsTheFormulaAtEveryLength) {
  for (const int64_t length : {40, 63, 64, 65, 500}) {
    SCOPED_TRACE(length);
    check_causal({length}, 4, 2);
  }
}

// Against the formula on the CPU; where sums have a fixed order twice, for the same bits.
void check_causal_on_gpu(const std::vector<int64_t>& lengths, int64_t heads, int64_t groups,
                         at::ScalarType dtype, int64_t dim, bool deterministic = true) {
  const at::Device gpu(at::kCUDA, 0);
  const auto sequences = sequences_of(lengths);
  const auto there = Sequences(sequences.offsets(), gpu);
  const auto x = make_inputs(sequences.num_tokens(), heads, groups, dtype, dim);
  const auto plain_formula = [&](const Inputs& y) { return formula(y, sequences); };
  const auto want = run(plain_formula, x, at::kDouble), plain = run(plain_formula, x, dtype);
  const auto attend = [&](const Inputs& y) {
    return causal_attention(y.q.to(gpu), y.k.to(gpu), y.v.to(gpu), there,
                            {.scale = kScale, .deterministic = deterministic})
        .cpu();
  };
  const auto got = run(attend, x, dtype), again = run(attend, x, dtype);
  expect_close("o", got.o, want.o, plain.o);
  expect_equal("o, twice", again.o, got.o);
  const char* names[] = {"dq", "dk", "dv"};
  for (int i = 0; i < 3; ++i) {
    expect_close(names[i], got.gradients[i], want.gradients[i], plain.gradients[i]);
    if (deterministic) expect_equal(names[i], again.gradients[i], got.gradients[i]);
  }
}

// run.deterministic = false.
TEST(AttentionCuda, SumsInAnyOrderEqualTheFormula) {
  HALO_NEEDS_GPU();
  for (const int64_t dim : {64, 128}) {
    SCOPED_TRACE(dim);
    check_causal_on_gpu({33, 130, 520}, 4, 2, at::kBFloat16, dim, false);
    check_causal_on_gpu({256, 256, 256}, 16, 8, at::kBFloat16, dim, false);
  }
}

TEST(AttentionCuda, CuDnnRunsBatchesOnHopper) {
  HALO_NEEDS_GPU();
  const at::Device gpu(at::kCUDA, 0);
  const auto is_cudnn = [&](const std::vector<int64_t>& lengths, int64_t dim) {
    const Sequences sequences(sequences_of(lengths).offsets(), gpu);
    const auto x = make_inputs(sequences.num_tokens(), 4, 2, at::kBFloat16, dim);
    return attention_aten(x.q.to(gpu), x.k.to(gpu), x.v.to(gpu), kScale, sequences)
        .cudnn_log_sums.defined();
  };
  const bool hopper = compute_capability(at::empty({1}, at::TensorOptions().device(gpu))) == 9;
  EXPECT_EQ(is_cudnn({256, 256}, 128), hopper);
  EXPECT_FALSE(is_cudnn({256, 128}, 128)) << "no batch";
  EXPECT_FALSE(is_cudnn({250, 250}, 128)) << "no training's rows";
  EXPECT_FALSE(is_cudnn({256, 256}, 32)) << "a head size that was not measured";
}

// All heads in a call, and few of them, as long rows have.
TEST(AttentionCuda, CuDnnSumsInAFixedOrder) {
  HALO_NEEDS_GPU();
  const at::Device gpu(at::kCUDA, 0);
  if (compute_capability(at::empty({1}, at::TensorOptions().device(gpu))) != 9)
    GTEST_SKIP() << "attention is cuDNN's on a Hopper alone";
  const test::CudaKernelsSetting all("all");
  const test::PoisonUninitialized poison;
  for (const int64_t dim : {64, 128}) {
    SCOPED_TRACE(dim);
    const Sequences sequences({0, 384, 768}, gpu);
    const auto x = make_inputs(768, 16, 8, at::kBFloat16, dim);
    const auto plain_formula = [&](const Inputs& y) { return formula(y, sequences); };
    const auto want = run(plain_formula, x, at::kDouble),
               plain = run(plain_formula, x, at::kBFloat16);
    const auto d_o = random_tensor(x.q.sizes(), 5, at::kBFloat16).to(gpu);
    const auto q = x.q.to(gpu), k = x.k.to(gpu), v = x.v.to(gpu);
    const auto forward = attention_aten(q, k, v, kScale, sequences);
    for (const int64_t share : {16, 4, 2}) {
      SCOPED_TRACE(share);
      const auto got = cudnn_fixed_backward(d_o, q, k, v, forward, kScale, 384, share);
      const auto again = cudnn_fixed_backward(d_o, q, k, v, forward, kScale, 384, share);
      ASSERT_TRUE(got && again) << "cuDNN has no plan";
      const at::Tensor gradients[] = {got->q, got->k, got->v},
                       twice[] = {again->q, again->k, again->v};
      const char* names[] = {"dq", "dk", "dv"};
      for (int i = 0; i < 3; ++i) {
        expect_close(names[i], gradients[i].cpu(), want.gradients[i], plain.gradients[i]);
        expect_equal(names[i], twice[i].cpu(), gradients[i].cpu());
      }
    }
  }
}

TEST(AttentionCuda, EqualsTheFormula) {
  if (!test::has_gpu()) GTEST_SKIP() << "there is no GPU here";
  const test::PoisonUninitialized poison;
  for (const auto dtype : {at::kFloat, at::kBFloat16}) {
    for (const int64_t dim : {64, 128}) {
      SCOPED_TRACE(std::string(at::toString(dtype)) + ", head size " + std::to_string(dim));
      check_causal_on_gpu({700}, 4, 2, dtype, dim);
      check_causal_on_gpu({33, 0, 130, 520, 64}, 4, 4, dtype, dim);
      check_causal_on_gpu({700}, 16, 8, dtype, dim);  // more than one call in Flash's backward
      check_causal_on_gpu({290, 410}, 16, 8, dtype, dim);
      check_causal_on_gpu({256, 256, 256}, 16, 8, dtype, dim);  // a batch
    }
  }
}

// 131,072 tokens, of which a few look back and take gradients: the formula for them alone.
TEST(AttentionCuda, LongSequence) {
  HALO_NEEDS_GPU();
  const test::PoisonUninitialized poison;
  const int64_t tokens = test::kManyRows, heads = 2, dim = 64;
  const at::Device gpu(at::kCUDA, 0);
  const auto rows = at::cat({at::arange(0, tokens, 4099, at::kLong), at::tensor({tokens - 1})});
  const auto hidden = at::arange(tokens, at::kLong).unsqueeze(0) > rows.unsqueeze(1);
  for (const auto dtype : {at::kFloat, at::kBFloat16}) {
    SCOPED_TRACE(at::toString(dtype));
    const auto x = make_inputs(tokens, heads, 1, dtype, dim);
    const auto gradient = random_tensor({rows.size(0), heads, dim}, 5, dtype);
    const auto of_rows = [&](at::ScalarType type) {
      const Inputs leaves{leaf(x.q, type), leaf(x.k, type), leaf(x.v, type)};
      const auto logits =
          at::matmul(leaves.q.index_select(0, rows).transpose(0, 1), leaves.k.squeeze(1).t()) *
          kScale;
      const auto weights =
          logits.masked_fill(hidden, -std::numeric_limits<double>::infinity()).softmax(-1);
      Outcome out{at::matmul(weights, leaves.v.squeeze(1)).transpose(0, 1), {}};
      out.gradients =
          torch::autograd::grad({out.o}, {leaves.q, leaves.k, leaves.v}, {gradient.to(type)});
      return out;
    };
    const Outcome want = of_rows(at::kDouble), plain = of_rows(dtype);
    const auto sequences = Sequences({0, tokens}, gpu);
    const Inputs leaves{leaf(x.q, dtype), leaf(x.k, dtype), leaf(x.v, dtype)};
    const auto o =
        causal_attention(leaves.q.to(gpu), leaves.k.to(gpu), leaves.v.to(gpu), sequences, {kScale})
            .cpu()
            .index_select(0, rows);
    const auto gradients = torch::autograd::grad({o}, {leaves.q, leaves.k, leaves.v}, {gradient});
    expect_close("o", o, want.o, plain.o);
    const char* names[] = {"dq", "dk", "dv"};
    for (int i = 0; i < 3; ++i) {
      expect_close(names[i], gradients[i], want.gradients[i], plain.gradients[i]);
    }
  }
}

// The gradients of q and k are exactly 0 here, so no relative bound holds for them.
TEST(Attention, OneTokenSeesItself) {
  const auto sequences = sequences_of({1});
  const auto x = make_inputs(1, 4, 2, at::kFloat);
  for (const auto kernels : {Kernels::kFast, Kernels::kReference}) {
    const auto got = run(
        [&](const Inputs& y) {
          return causal_attention(y.q, y.k, y.v, sequences, {kScale, kernels});
        },
        x, at::kFloat);
    expect_equal("o", got.o, x.v.repeat_interleave(2, 1));
    EXPECT_LT(test::rms(got.gradients[0]), 1e-6);
    EXPECT_LT(test::rms(got.gradients[1]), 1e-6);
    expect_rms("dv", got.gradients[2], random_tensor(got.o.sizes(), 5).view({1, 2, 2, kDim}).sum(2),
               1e-6);
  }
}

TEST(Attention, EqualsTheFormulaPacked) {
  check_causal({0, 70, 0, 0, 1, 33, 33, 33, 64, 0}, 4, 2);
  check_causal({32, 32, 32}, 3, 3);
  check_causal({40, 9}, 6, 1);
}

TEST(Attention, EqualsTheFormulaAtEveryHeadSize) {
  for (const int64_t dim : {1, 20, 64, 100}) {
    SCOPED_TRACE(dim);
    check_causal({130, 7}, 4, 2, at::kFloat, dim);
  }
}

// The fast form too: neither other sequences, NaN in them included, nor threads change a bit.
TEST(Attention, FastBitsDependOnTheSequenceAlone) {
  const auto x = make_inputs(170, 4, 2, at::kFloat);
  const auto attend = [](const std::vector<int64_t>& lengths) {
    return [=](const Inputs& y) {
      return causal_attention(y.q, y.k, y.v, sequences_of(lengths), {kScale});
    };
  };
  auto packed_inputs = x;
  for (auto part : {&Inputs::q, &Inputs::k, &Inputs::v}) {
    packed_inputs.*part = (x.*part).clone();
    (packed_inputs.*part).slice(0, 0, 40).fill_(std::numeric_limits<float>::quiet_NaN());
  }
  const Inputs rest{x.q.slice(0, 40), x.k.slice(0, 40), x.v.slice(0, 40)};
  const int threads = at::get_num_threads();
  const auto packed = attend({40, 0, 130})(packed_inputs);
  EXPECT_TRUE(packed.slice(0, 0, 40).isnan().all().item<bool>());
  expect_equal("o", attend({130})(rest), packed.slice(0, 40));
  const auto before = run(attend({40, 0, 130}), x, at::kFloat);
  at::set_num_threads(threads == 1 ? 2 : 1);
  const auto after = run(attend({40, 0, 130}), x, at::kFloat);
  at::set_num_threads(threads);
  expect_equal("o", after.o, before.o);
  for (int i = 0; i < 3; ++i) expect_equal("gradient", after.gradients[i], before.gradients[i]);
}

TEST(Attention, Bf16) {
  check_causal({0, 70, 1, 33, 33}, 4, 2, at::kBFloat16);
}

TEST(Attention, StridedInputs) {
  const auto sequences = sequences_of({30, 30, 5});
  const auto x = make_inputs(65, 4, 4, at::kFloat);
  const auto want =
      run([&](const Inputs& y) { return causal_attention(y.q, y.k, y.v, sequences, {kScale}); }, x,
          at::kFloat);
  const auto stacked = leaf(at::cat({x.q, x.k, x.v}, 2), at::kFloat);
  const auto parts = stacked.chunk(3, 2);
  const auto got = causal_attention(parts[0], parts[1], parts[2], sequences, {kScale});
  expect_equal("o", got, want.o);
  const auto gradient =
      torch::autograd::grad({got}, {stacked}, {random_tensor(got.sizes(), 5)}, true);
  expect_equal("gradients", gradient[0], at::cat(want.gradients, 2));
}

TEST(Attention, NoTokens) {
  const auto x = make_inputs(0, 4, 2, at::kFloat);
  const auto got = run(
      [&](const Inputs& y) {
        return causal_attention(y.q, y.k, y.v, sequences_of({0, 0}), {kScale});
      },
      x, at::kFloat);
  EXPECT_EQ(got.o.sizes(), x.q.sizes());
  EXPECT_EQ(got.gradients[1].sizes(), x.k.sizes());
}

TEST(Attention, RefusesWrongShapes) {
  const auto x = make_inputs(10, 4, 3, at::kFloat);
  EXPECT_THROW(causal_attention(x.q, x.k, x.v, sequences_of({10}), {}), std::exception);
  EXPECT_THROW(causal_attention(x.q, x.q, x.q, sequences_of({9}), {}), std::exception);
}

// Blocks of `size` tokens for sequences of at most `longest`; block numbers consecutive, or dealt
// to the sequences in turn from the last down. What was never stored is NaN.
PagedKeyValue make_cache(int64_t count, int64_t longest, int64_t size, int64_t groups,
                         bool scattered, at::ScalarType dtype = at::kFloat) {
  const int64_t blocks = (longest + size - 1) / size;
  PagedKeyValue cache;
  cache.keys = at::full({count * blocks, size, groups, kDim},
                        std::numeric_limits<double>::quiet_NaN(), dtype);
  cache.values = cache.keys.clone();
  const auto number = at::arange(count * blocks, at::kLong);
  cache.block_table = scattered ? number.flip(0).view({blocks, count}).transpose(0, 1).contiguous()
                                : number.view({count, blocks});
  cache.lengths.assign(count, 0);
  return cache;
}

// Feeds the sequences of x to the cache in `steps` (tokens of each sequence in each step) and
// returns the outputs in the packed order of x.
at::Tensor feed(const Inputs& x, const Sequences& whole, PagedKeyValue cache,
                const std::vector<std::vector<int64_t>>& steps, Kernels kernels) {
  auto out = at::full(x.q.sizes(), std::numeric_limits<double>::quiet_NaN(), x.q.options());
  for (const auto& lengths : steps) {
    const auto sequences = sequences_of(lengths);
    std::vector<at::Tensor> index;
    for (int64_t s = 0; s < whole.count(); ++s) {
      const int64_t begin = whole.offsets()[s] + cache.lengths[s];
      index.push_back(at::arange(begin, begin + lengths[s], at::kLong));
      cache.lengths[s] += lengths[s];
    }
    const auto token = at::cat(index).to(x.q.device());
    store_key_value(cache, x.k.index_select(0, token), x.v.index_select(0, token), sequences);
    const auto o = paged_attention(x.q.index_select(0, token), cache, sequences, {kScale, kernels});
    out.index_copy_(0, token, o);
  }
  return out;
}

TEST(PagedAttention, AnySplitEqualsOneGo) {
  const test::PoisonUninitialized poison;
  const std::vector<int64_t> lengths{70, 1, 40, 33};
  const auto whole = sequences_of(lengths);
  const auto x = make_inputs(whole.num_tokens(), 4, 2, at::kFloat);
  const auto reference = causal_attention(x.q, x.k, x.v, whole, {kScale, Kernels::kReference});
  const std::vector<std::vector<std::vector<int64_t>>> splits{
      {{70, 1, 40, 33}},
      {{30, 0, 1, 1}, {1, 1, 1, 1}, {1, 0, 1, 1}, {0, 0, 0, 30}, {38, 0, 37, 0}},
      {{69, 0, 39, 32}, {1, 1, 1, 1}}};
  for (const bool scattered : {false, true}) {
    for (size_t i = 0; i < splits.size(); ++i) {
      SCOPED_TRACE(fmt::format("scattered {}, split {}", scattered, i));
      const auto cache = make_cache(4, 70, 8, 2, scattered);
      expect_equal("reference", feed(x, whole, cache, splits[i], Kernels::kReference), reference);
      expect_rms("fast", feed(x, whole, cache, splits[i], Kernels::kFast), reference, 5e-6);
    }
  }
}

PagedKeyValue in_int8(PagedKeyValue cache) {
  const auto sizes = cache.keys.sizes();
  cache.key_scales =
      at::full({sizes[0], sizes[2], sizes[1]}, std::numeric_limits<double>::quiet_NaN(),
               cache.keys.options().dtype(at::kFloat));
  cache.value_scales = cache.key_scales.clone();
  cache.keys = at::zeros(sizes, cache.keys.options().dtype(at::kChar));
  cache.values = at::zeros_like(cache.keys);
  return cache;
}

// What int8 stands for is what is seen, in the fixed-order form with the same bits as in fp32.
TEST(PagedAttention, Int8StandsForItsNumbers) {
  const test::PoisonUninitialized poison;
  const std::vector<int64_t> lengths{70, 1, 40, 333};
  const auto whole = sequences_of(lengths);
  const auto x = make_inputs(whole.num_tokens(), 4, 2, at::kFloat);
  const Inputs seen{x.q, from_int8(to_int8(x.k), at::kFloat), from_int8(to_int8(x.v), at::kFloat)};
  const std::vector<std::vector<std::vector<int64_t>>> splits{
      {{70, 1, 40, 333}}, {{30, 0, 1, 1}, {1, 1, 1, 302}, {39, 0, 38, 30}}};
  for (const bool scattered : {false, true}) {
    for (const auto& split : splits) {
      const auto cache = in_int8(make_cache(4, 333, 8, 2, scattered));
      const Inputs exact{x.q.to(at::kDouble), seen.k.to(at::kDouble), seen.v.to(at::kDouble)};
      for (const auto kernels : {Kernels::kFast, Kernels::kReference}) {
        expect_close("o", feed(x, whole, cache, split, kernels), formula(exact, whole),
                     formula(seen, whole));
      }
      const auto first = in_int8(make_cache(4, 333, 16, 2, false));
      expect_rms("any split and block", feed(x, whole, cache, split, Kernels::kReference),
                 feed(x, whole, first, splits[0], Kernels::kReference), 0);
    }
  }
}

TEST(PagedAttentionCuda, Int8StandsForItsNumbers) {
  HALO_NEEDS_GPU();
  const auto whole = sequences_of({300, 150});
  const auto x = make_inputs(450, 6, 2, at::kBFloat16);
  const Inputs exact{x.q.to(at::kDouble), from_int8(to_int8(x.k), at::kDouble),
                     from_int8(to_int8(x.v), at::kDouble)};
  for (const bool scattered : {false, true}) {
    auto cache = make_cache(2, 300, 16, 2, scattered, at::kBFloat16);
    cache.keys = cache.keys.to(at::kCUDA);
    cache = in_int8(cache);
    const Inputs there{x.q.to(at::kCUDA), x.k.to(at::kCUDA), x.v.to(at::kCUDA)};
    const auto got = feed(there, whole, cache, {{100, 20}, {199, 129}, {1, 1}}, Kernels::kFast);
    expect_close("o", got.cpu(), formula(exact, whole),
                 formula({x.q, exact.k.to(at::kBFloat16), exact.v.to(at::kBFloat16)}, whole));
  }
}

TEST(PagedAttention, EqualsTheFormula) {
  for (const auto dtype : {at::kFloat, at::kBFloat16}) {
    const auto whole = sequences_of({50, 20});
    const auto x = make_inputs(70, 6, 2, dtype);
    const Inputs exact{x.q.to(at::kDouble), x.k.to(at::kDouble), x.v.to(at::kDouble)};
    const auto cache = make_cache(2, 50, 16, 2, true, dtype);
    for (const auto kernels : {Kernels::kFast, Kernels::kReference}) {
      expect_close("o", feed(x, whole, cache, {{20, 19}, {29, 1}, {1, 0}}, kernels),
                   formula(exact, whole), formula(x, whole));
    }
  }
}

// Blocks of one sequence that lie together, and scattered ones.
TEST(PagedAttentionCuda, ContinuedPromptsEqualTheFormula) {
  HALO_NEEDS_GPU();
  const auto whole = sequences_of({300, 150});
  const auto x = make_inputs(450, 6, 2, at::kBFloat16);
  const Inputs exact{x.q.to(at::kDouble), x.k.to(at::kDouble), x.v.to(at::kDouble)};
  for (const bool scattered : {false, true}) {
    auto cache = make_cache(2, 300, 16, 2, scattered, at::kBFloat16);
    cache.keys = cache.keys.to(at::kCUDA);
    cache.values = cache.values.to(at::kCUDA);
    const Inputs there{x.q.to(at::kCUDA), x.k.to(at::kCUDA), x.v.to(at::kCUDA)};
    const auto got = feed(there, whole, cache, {{100, 20}, {199, 129}, {1, 1}}, Kernels::kFast);
    expect_close("o", got.cpu(), formula(exact, whole), formula(x, whole));
  }
}

// Longer than the pieces that are merged: with whole ones behind the new tokens and with some left,
// and with fewer queries than a piece is padded to.
TEST(PagedAttentionCuda, LongPastsEqualTheFormula) {
  HALO_NEEDS_GPU();
  const test::CudaKernelsSetting all("all");
  constexpr int64_t kPast = 2 * 16384, kMore = 700, kLast = 2048, kTail = 1100, kFew = 200;
  const int64_t total = kPast + kMore + kLast + kTail + kFew;
  const auto whole = sequences_of({total});
  const auto x = make_inputs(total, 4, 2, at::kBFloat16);
  const Inputs there{x.q.to(at::kCUDA), x.k.to(at::kCUDA), x.v.to(at::kCUDA)};
  enum class Blocks { kTogether, kScattered, kInTwoPlaces };
  for (const Blocks blocks : {Blocks::kTogether, Blocks::kScattered, Blocks::kInTwoPlaces}) {
    auto cache = make_cache(1, total, 256, 2, blocks == Blocks::kScattered, at::kBFloat16);
    if (blocks == Blocks::kInTwoPlaces) cache.block_table = cache.block_table.roll(50, 1);
    cache.keys = cache.keys.to(at::kCUDA);
    cache.values = cache.values.to(at::kCUDA);
    const auto got =
        feed(there, whole, cache, {{kPast}, {kLast}, {kMore}, {kTail}, {kFew}}, Kernels::kFast);
    const int64_t tail = total - kFew;
    for (const auto& range :
         {std::pair{kPast, kPast + kLast}, {tail - kTail, tail}, {tail, total}}) {
      const int64_t begin = range.first, end = range.second;
      // In double of these queries alone: the whole would take 5 GB a head.
      const auto exact = [&](at::ScalarType dtype) {
        const auto q = there.q.slice(0, begin, end).to(dtype).view({end - begin, 2, 2, -1});
        const auto k = there.k.slice(0, 0, end).to(dtype), v = there.v.slice(0, 0, end).to(dtype);
        auto logits = at::einsum("nghd,mgd->ghnm", {q, k}) * kScale;
        const auto hidden =
            at::ones({end - begin, end}, logits.options().dtype(at::kBool)).triu_(begin + 1);
        logits.masked_fill_(hidden, -std::numeric_limits<double>::infinity());
        return at::einsum("ghnm,mgd->nghd", {logits.softmax(3), v}).flatten(1, 2);
      };
      expect_close("o", got.slice(0, begin, end).cpu(), exact(at::kDouble).cpu(),
                   exact(at::kBFloat16).cpu());
    }
  }
}

// Many decoding sequences of very different lengths, in batches bounded in bytes. All read one
// block.
TEST(PagedAttention, DecodesManySequences) {
  std::vector<int64_t> tokens, lengths;
  for (int64_t s = 0; s < 40; ++s) {
    tokens.push_back(s % 5 == 4 ? 0 : 1);
    lengths.push_back(s % 20 == 0 ? 9000 : s + 1);
  }
  const auto sequences = sequences_of(tokens);
  auto cache = make_cache(1, 9000, 9000, 2, false);
  cache.keys = random_tensor(cache.keys.sizes(), 7);
  cache.values = random_tensor(cache.keys.sizes(), 8);
  cache.block_table = at::zeros({40, 1}, at::kLong);
  cache.lengths = lengths;
  const auto q = random_tensor({sequences.num_tokens(), 4, kDim}, 9);
  expect_rms("o", paged_attention(q, cache, sequences, {kScale}),
             paged_attention(q, cache, sequences, {kScale, Kernels::kReference}), 1e-5);
}

// New tokens on the CPU: a sequence has the same bits in any company, and keys and values in bf16
// are their fp32 values.
TEST(PagedAttention, DecodedBitsDependOnTheSequenceAlone) {
  const std::vector<int64_t> lengths{700, 1, 256, 257, 90};
  auto cache = make_cache(5, 700, 16, 2, true);
  cache.keys = random_tensor(cache.keys.sizes(), 7).to(at::kBFloat16);
  cache.values = random_tensor(cache.keys.sizes(), 8).to(at::kBFloat16);
  cache.lengths = lengths;
  const auto q = random_tensor({5, 6, kDim}, 9);
  const auto all = paged_attention(q, cache, sequences_of({1, 1, 1, 1, 1}), {kScale});
  PagedKeyValue same = cache;
  same.keys = cache.keys.to(at::kFloat);
  same.values = cache.values.to(at::kFloat);
  expect_equal("fp32", paged_attention(q, same, sequences_of({1, 1, 1, 1, 1}), {kScale}), all);
  expect_rms("o", all,
             paged_attention(q, same, sequences_of({1, 1, 1, 1, 1}), {kScale, Kernels::kReference}),
             1e-5);
  for (int64_t s = 0; s < 5; ++s) {
    PagedKeyValue one = cache;
    one.block_table = cache.block_table.narrow(0, s, 1);
    one.lengths = {lengths[s]};
    expect_equal("alone", paged_attention(q.narrow(0, s, 1), one, sequences_of({1}), {kScale}),
                 all.narrow(0, s, 1));
  }
}

// A prompt so long that its mask is made in parts.
TEST(PagedAttention, LongPrompt) {
  const auto whole = sequences_of({6100});
  const auto x = make_inputs(6100, 1, 1, at::kFloat);
  const auto cache = make_cache(1, 6100, 6100, 1, false);
  expect_rms("o", feed(x, whole, cache, {{100}, {6000}}, Kernels::kFast),
             causal_attention(x.q, x.k, x.v, whole, {kScale}), 1e-5);
}

// So many tokens that threads share them.
TEST(Attention, ThreadsDoNotChangeReferenceBits) {
  const auto whole = sequences_of({600});
  const auto x = make_inputs(600, 4, 2, at::kFloat);
  const int threads = at::get_num_threads();
  const auto before = causal_attention(x.q, x.k, x.v, whole, {kScale, Kernels::kReference});
  at::set_num_threads(threads == 1 ? 2 : 1);
  expect_equal("o", causal_attention(x.q, x.k, x.v, whole, {kScale, Kernels::kReference}), before);
  at::set_num_threads(threads);
}

TEST(PagedAttention, RefusesAWrongTable) {
  const auto x = make_inputs(10, 4, 2, at::kFloat);
  auto cache = make_cache(1, 8, 4, 2, false);
  cache.lengths = {10};
  EXPECT_THROW(store_key_value(cache, x.k, x.v, sequences_of({10})), std::exception);
  cache.lengths = {5};
  EXPECT_THROW(paged_attention(x.q, cache, sequences_of({10}), {}), std::exception);
  cache = make_cache(1, 12, 4, 2, false);
  cache.lengths = {10};
  cache.block_table[0][2] = 3;
  EXPECT_THROW(store_key_value(cache, x.k, x.v, sequences_of({10})), std::exception);
}

}  // namespace
}  // namespace halo
