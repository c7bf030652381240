#include "halo/kernels/lightning/lightning_decode.h"

#include "halo/base/check.h"
#include "halo/kernels/lightning/lightning.h"
#include "tests/gpu.h"
#include "tests/op_check.h"

namespace halo {
namespace {

using test::expect_close;
using test::expect_equal;
using test::random_tensor;

constexpr double kEps = 1e-6;

struct Case {
  std::vector<int64_t> slots;
  int64_t tokens = 1;
  int64_t heads = 2, kv_heads = 2, head_dim = 64;
  bool norms = true, rope = true, gate = true;
};

struct Inputs {
  at::Tensor stacked, states, slots;
  LightningDecode args;
};

Inputs inputs_of(const Case& c, at::ScalarType dtype, at::Device device) {
  Inputs x;
  const int64_t rows = std::ssize(c.slots) * c.tokens, h = c.heads, d = c.head_dim;
  const auto make = [&](at::IntArrayRef shape, uint64_t seed) {
    return random_tensor(shape, seed, at::kBFloat16).to(device, dtype);
  };
  x.stacked = make({rows, ((c.gate ? 2 : 1) * h + 2 * c.kv_heads) * d}, 1);
  x.states = random_tensor({7, h, d, d}, 2).to(device);
  x.slots = at::tensor(c.slots, at::kLong).to(device);
  x.args.split = {h, c.kv_heads, d, c.gate, kEps};
  if (c.norms) {
    x.args.q_norm.value = make({d}, 3);
    x.args.k_norm.value = make({d}, 4);
  }
  if (c.rope) {
    const at::Tensor positions = at::arange(rows, at::kLong) * 1000 + 3;
    const at::Tensor inv_freq = at::pow(10000.0, at::arange(d / 2, at::kDouble) * (-2.0 / d));
    const RopeTables tables = rope_tables(positions, inv_freq);
    x.args.rope = RopeTables{tables.cos.to(device), tables.sin.to(device)};
  }
  x.args.slopes = alibi_slopes(h);
  x.args.scale = 0.5;
  return x;
}

at::Tensor turned(const at::Tensor& x, const LightningDecode& args, const Weight& norm,
                  at::ScalarType dtype) {
  at::Tensor y = x;
  if (norm.defined()) {
    y = norm.value.cpu().to(dtype) * (y * (y.square().mean(2, true) + kEps).rsqrt());
  }
  if (!args.rope) return y;
  const auto halves = y.chunk(2, 2);
  const auto cos = args.rope->cos.cpu().to(dtype).unsqueeze(1);
  const auto sin = args.rope->sin.cpu().to(dtype).unsqueeze(1);
  return at::cat({halves[0] * cos - halves[1] * sin, halves[1] * cos + halves[0] * sin}, 2);
}

struct Result {
  at::Tensor o, states;  // of the sequences that are there; all states
};

Result rows_here(const Case& c, const Result& x) {
  std::vector<at::Tensor> rows;
  for (int64_t s = 0; s < std::ssize(c.slots); ++s) {
    if (c.slots[s] >= 0) rows.push_back(x.o.slice(0, s * c.tokens, (s + 1) * c.tokens));
  }
  return {at::cat(rows).cpu(), x.states.cpu()};
}

// The recurrence, plainly; activations and state in `dtype`.
Result formula(const Case& c, const Inputs& x, at::ScalarType dtype) {
  const auto parts = x.stacked.cpu().to(dtype).split_with_sizes(
      {c.heads * c.head_dim, c.kv_heads * c.head_dim, c.kv_heads * c.head_dim,
       c.gate ? c.heads * c.head_dim : 0},
      1);
  const auto head = [&](int i) { return parts[i].unflatten(1, {-1, c.head_dim}); };
  const auto q = turned(head(0), x.args, x.args.q_norm, dtype);
  const auto k = turned(head(1), x.args, x.args.k_norm, dtype), v = head(2);
  Result out{at::zeros({q.size(0), c.heads * c.head_dim}, dtype), x.states.cpu().to(dtype).clone()};
  for (int64_t s = 0; s < std::ssize(c.slots); ++s) {
    if (c.slots[s] < 0) continue;
    for (int64_t n = s * c.tokens; n < (s + 1) * c.tokens; ++n) {
      for (int64_t h = 0; h < c.heads; ++h) {
        const int64_t g = h / (c.heads / c.kv_heads);
        auto state = out.states[c.slots[s]][h];
        state.mul_(std::exp(-x.args.slopes[h])).add_(at::outer(k[n][g], v[n][g]));
        out.o[n]
            .slice(0, h * c.head_dim, (h + 1) * c.head_dim)
            .copy_(state.t().mv(q[n][h]) * x.args.scale);
      }
    }
  }
  return out;
}

Result run(const Inputs& x, Kernels kernels) {
  const at::Tensor states = x.states.clone();
  const at::Tensor o = lightning_decode(x.stacked, x.args, states, x.slots, kernels);
  return {o, states};
}

const std::vector<Case> kCases{
    {.slots = {3}},
    {.slots = {6, -1, 0, 2}, .heads = 4, .kv_heads = 2, .head_dim = 128},
    {.slots = {1, 5}, .tokens = 5, .heads = 3, .kv_heads = 3, .head_dim = 128, .gate = false},
    {.slots = {4, -1}, .tokens = 2, .heads = 4, .kv_heads = 1, .norms = false, .rope = false}};

void check_case(const Case& c, at::ScalarType dtype, at::Device device, Kernels kernels) {
  const Inputs x = inputs_of(c, dtype, device);
  const Result got = rows_here(c, run(x, kernels)), want = rows_here(c, formula(c, x, at::kDouble)),
               plain = rows_here(c, formula(c, x, dtype));
  expect_close("o", got.o, want.o, plain.o);
  expect_close("states", got.states, want.states, plain.states);
}

TEST(LightningDecode, EqualsTheFormula) {
  for (const Case& c : kCases) {
    SCOPED_TRACE(fmt::format("{} sequences of {}, {} heads of {}", c.slots.size(), c.tokens,
                             c.heads, c.head_dim));
    for (const auto dtype : {at::kFloat, at::kBFloat16}) {
      check_case(c, dtype, at::kCPU, Kernels::kFast);
      check_case(c, dtype, at::kCPU, Kernels::kReference);
    }
  }
}

TEST(LightningDecode, RefusesWrongShapes) {
  Inputs x = inputs_of({.slots = {0, 1}}, at::kFloat, at::kCPU);
  x.slots = at::tensor({0, 1, 2}, at::kLong);
  EXPECT_THROW(run(x, Kernels::kFast), Error);
  x = inputs_of({.slots = {0, 1}}, at::kFloat, at::kCPU);
  x.states = x.states.to(at::kBFloat16);
  EXPECT_THROW(run(x, Kernels::kFast), Error);
}

TEST(LightningDecodeCuda, EqualsTheFormula) {
  HALO_NEEDS_GPU();
  const test::CudaKernelsSetting all("all");
  const test::PoisonUninitialized poison;
  for (const Case& c : kCases) {
    SCOPED_TRACE(fmt::format("{} sequences of {}, {} heads of {}", c.slots.size(), c.tokens,
                             c.heads, c.head_dim));
    check_case(c, at::kFloat, at::kCUDA, Kernels::kFast);
    check_case(c, at::kBFloat16, at::kCUDA, Kernels::kFast);
  }
}

// Tokens one by one, at once, and beside another sequence.
TEST(LightningDecodeCuda, BitsOfASequenceDoNotDependOnTheOthersNorOnTheWindow) {
  HALO_NEEDS_GPU();
  const test::CudaKernelsSetting all("all");
  const Case c{.slots = {2, 6}, .tokens = 3, .heads = 4, .kv_heads = 2, .head_dim = 128};
  const Inputs x = inputs_of(c, at::kBFloat16, at::kCUDA);
  const Result together = run(x, Kernels::kFast);
  const at::Tensor states = x.states.clone();
  for (int64_t n = 0; n < 6; ++n) {
    LightningDecode one = x.args;
    one.rope = RopeTables{x.args.rope->cos.narrow(0, n, 1), x.args.rope->sin.narrow(0, n, 1)};
    const at::Tensor o = lightning_decode(x.stacked.narrow(0, n, 1), one, states,
                                          x.slots.narrow(0, n / 3, 1), Kernels::kFast);
    expect_equal("o", o.cpu(), together.o.narrow(0, n, 1).cpu());
  }
  expect_equal("states", states.cpu(), together.states.cpu());
}

}  // namespace
}  // namespace halo
