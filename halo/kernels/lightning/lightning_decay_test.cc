// Lightning attention under decays of each head and token: against the quadratic formula in fp64,
// and as the fixed decays where the gates are 0.
#include <numbers>

#include "halo/kernels/lightning/lightning_testing.h"
#include "tests/gpu.h"

namespace halo {
namespace {

using namespace test;
using namespace lightning_test;

// The recurrence token by token. Unlike the quadratic formula, which sums the gradient of its fp64
// decays in fp64, it is as exact as its type.
LightningResult recurrence(const LightningArgs& args, const Sequences& sequences) {
  const int64_t repeat = args.q.size(1) / args.k.size(1);
  const auto k = args.k.repeat_interleave(repeat, 1), v = args.v.repeat_interleave(repeat, 1);
  const auto g = args.log_decay.exp().to(args.q.scalar_type()).unsqueeze(-1).unsqueeze(-1);
  std::vector<at::Tensor> outputs, states;
  for (int64_t s = 0; s < sequences.count(); ++s) {
    at::Tensor state = args.state.defined()
                           ? args.state[s].to(args.q.scalar_type())
                           : at::zeros({v.size(1), k.size(2), v.size(2)}, args.q.options());
    for (int64_t t = sequences.offsets()[s]; t < sequences.offsets()[s + 1]; ++t) {
      state = g[t] * state + k[t].unsqueeze(2) * v[t].unsqueeze(1);
      outputs.push_back(args.scale * at::matmul(args.q[t].unsqueeze(1), state).squeeze(1));
    }
    states.push_back(state);
  }
  return {at::stack(outputs), at::stack(states)};
}

TEST(Lightning, DecaysOfEachToken) {
  for (const int64_t length : {1, 16, 17, 64, 65, 300}) {
    SCOPED_TRACE(length);
    check_case({.lengths = {length}, .gated = true}, recurrence);
  }
  check_case({.lengths = {0, 70, 0, 0, 1, 200, 64, 3, 129, 0}, .gated = true}, recurrence);
  check_case({.lengths = {0, 70, 0, 0, 1, 200, 64, 3, 129, 0}, .with_state = false, .gated = true},
             recurrence);
  check_case({.lengths = {100, 30}, .heads = 6, .groups = 2, .gated = true}, recurrence);
  check_case({.lengths = {0, 70, 1, 150}, .dtype = at::kBFloat16, .gated = true});
  // Nothing is forgotten, or all; 1e3 a token is far below what exp of a chunk's sum can hold.
  check_case({.lengths = {200}, .heads = 2, .groups = 2, .slopes = {1e-9, 1e3}, .gated = true},
             recurrence);
}

TEST(Lightning, GatesOfZeroAreTheFixedDecay) {
  auto args = make_args({.lengths = {40, 90}, .heads = 6, .groups = 6});
  const auto fixed = reference(args, sequences_of({40, 90}));
  const auto gate = leaf(at::zeros({130, 6}), at::kFloat);
  args.log_decay = gated_log_decay(gate, args.slopes);
  const auto gated = reference(args, sequences_of({40, 90}));
  expect_equal("o", gated.o, fixed.o);
  expect_equal("state", gated.state, fixed.state);
  // d/dx ln(1 + e^x) = 1/2 there.
  const auto d = torch::autograd::grad({args.log_decay.sum()}, {gate})[0];
  const auto half = -at::tensor(args.slopes, at::kFloat) / (2 * std::numbers::ln2);
  EXPECT_TRUE(at::allclose(d, half.to(at::kFloat).expand_as(d), 1e-6, 0));
  // Whether or not there are gradients, whatever else is in the batch.
  const auto some_gates = random_tensor({7, 6}, 3) * 9;
  const auto alone = gated_log_decay(some_gates.slice(0, 3, 4), args.slopes);
  expect_equal("alone", alone, gated_log_decay(some_gates, args.slopes).slice(0, 3, 4));
  const auto leaves = leaf(some_gates, at::kFloat);
  const auto recorded = gated_log_decay(leaves, args.slopes);
  expect_equal("recorded", recorded.slice(0, 3, 4), alone);
  const auto slope = torch::autograd::grad({recorded.sum()}, {leaves})[0];
  const auto wanted = some_gates.to(at::kDouble).sigmoid() * at::tensor(args.slopes, at::kDouble) /
                      -std::numbers::ln2;
  EXPECT_TRUE(at::allclose(slope.to(at::kDouble), wanted, 1e-6, 0));
  // From fp64, whatever the gate's type: -slope log2(1 + e^x).
  const auto some = gated_log_decay(at::full({1, 2}, 3, at::kBFloat16), {0.5, 0.25});
  EXPECT_DOUBLE_EQ(some[0][0].item<double>(), -0.5 * std::log2(1 + std::exp(3.0)));
  EXPECT_DOUBLE_EQ(some[0][1].item<double>(), -0.25 * std::log2(1 + std::exp(3.0)));
  EXPECT_THROW(gated_log_decay(at::zeros({1, 3}), {0.5, 0.25}), std::exception);
}

// More chunks than one block holds: as two calls of less, the second from the first's state.
TEST(Lightning, CarriesStatesUnderDecaysOfEachTokenAcrossBlocks) {
  const Case c{.lengths = {100, 9000}, .heads = 2, .groups = 2, .dk = 4, .dv = 4, .gated = true};
  const auto args = make_args(c);
  const auto parts = [&](const LightningArgs& whole, const Sequences&) {
    const auto cut = [&](int64_t begin, int64_t end) {
      LightningArgs part = whole;
      for (auto x :
           {&LightningArgs::q, &LightningArgs::k, &LightningArgs::v, &LightningArgs::log_decay})
        part.*x = (whole.*x).slice(0, begin, end);
      return part;
    };
    LightningArgs head = cut(0, 5000), tail = cut(5000, 9100);
    const auto first = fast(head, sequences_of({100, 4900}));
    tail.state = first.state.slice(0, 1, 2);
    const auto second = fast(tail, sequences_of({4100}));
    return LightningResult{at::cat({first.o, second.o}),
                           at::cat({first.state.slice(0, 0, 1), second.state})};
  };
  const auto sequences = sequences_of(c.lengths);
  const auto got = run(fast, args, sequences, at::kFloat),
             want = run(parts, args, sequences, at::kFloat);
  const auto recurrent = reference(args, sequences);
  expect_rms("o", got.result.o, recurrent.o, 5e-5);
  expect_rms("state", got.result.state, recurrent.state, 5e-5);
  const char* names[] = {"dq", "dk", "dv", "dstate", "ddecay"};
  for (int i = 0; i < 5; ++i) expect_rms(names[i], got.gradients[i], want.gradients[i], 5e-5);
}

TEST(Lightning, RefusesLogDecaysOfAnotherTypeOrShape) {
  auto args = make_args({.lengths = {5}, .gated = true});
  args.log_decay = args.log_decay.to(at::kFloat);
  EXPECT_THROW(fast(args, sequences_of({5})), std::exception);
  args.log_decay = at::zeros({5}, at::kDouble);
  EXPECT_THROW(fast(args, sequences_of({5})), std::exception);
}

// Decays of each token have no kernel: the composition runs there.
TEST(LightningCuda, DecaysOfEachTokenAreComposed) {
  HALO_NEEDS_GPU();
  const test::CudaKernelsSetting all("all");
  for (const at::ScalarType dtype : {at::kFloat, at::kBFloat16}) {
    const Case c{.lengths = {0, 70, 1, 200, 64}, .dk = 64, .dv = 64, .dtype = dtype, .gated = true};
    const auto args = make_args(c);
    const auto want = run(quadratic, args, sequences_of(c.lengths), at::kDouble);
    const auto plain =
        run(dtype == at::kFloat ? recurrence : quadratic, args, sequences_of(c.lengths), dtype);
    const auto got = run(fast, on_gpu(args), sequences_of(c.lengths, at::kCUDA), dtype);
    expect_close("o", got.result.o.cpu(), want.result.o, plain.result.o);
    expect_close("state", got.result.state.cpu(), want.result.state, plain.result.state);
    for (size_t i = 0; i < got.gradients.size(); ++i)
      expect_close("gradient", got.gradients[i].cpu(), want.gradients[i], plain.gradients[i]);
  }
}

}  // namespace
}  // namespace halo
