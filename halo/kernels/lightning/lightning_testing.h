// What the tests of lightning attention share: its quadratic formula, and calls with gradients.
#pragma once

#include <numeric>
#include <string>
#include <vector>

#include "halo/kernels/common/sequences_testing.h"
#include "halo/kernels/lightning/lightning_forms.h"
#include "tests/op_check.h"
#include "torch/csrc/autograd/autograd.h"

namespace halo::lightning_test {

using namespace test;

struct Case {
  std::vector<int64_t> lengths;
  int64_t heads = 4, groups = 4, dk = 16, dv = 24;
  bool with_state = true;
  at::ScalarType dtype = at::kFloat;
  std::vector<double> slopes = {};  // empty: ALiBi
  bool gated = false;               // log-decays of each token, from gates between some -9 and 9
};

inline LightningArgs make_args(const Case& c) {
  const int64_t tokens = std::accumulate(c.lengths.begin(), c.lengths.end(), int64_t{0});
  LightningArgs args;
  args.q = random_tensor({tokens, c.heads, c.dk}, 1, c.dtype);
  args.k = random_tensor({tokens, c.groups, c.dk}, 2, c.dtype);
  args.v = random_tensor({tokens, c.groups, c.dv}, 3, c.dtype);
  args.slopes = c.slopes.empty() ? alibi_slopes(c.heads) : c.slopes;
  args.scale = 1 / std::sqrt(static_cast<double>(c.dk));
  if (c.with_state) {
    args.state = random_tensor({static_cast<int64_t>(c.lengths.size()), c.heads, c.dk, c.dv}, 4);
  }
  if (c.gated)
    args.log_decay = gated_log_decay(3 * random_tensor({tokens, c.heads}, 7), args.slopes);
  return args;
}

// o = ((q k^T) * M) v for each sequence alone, in the type of args.q; the decays come from fp64.
inline LightningResult quadratic(const LightningArgs& args, const Sequences& sequences) {
  const auto type = args.q.scalar_type();
  const int64_t repeat = args.q.size(1) / args.k.size(1);
  std::vector<at::Tensor> outputs, states;
  const int64_t tokens = args.q.size(0);
  const auto log_decay =
      (args.log_decay.defined() ? args.log_decay
                                : -at::tensor(args.slopes, at::kDouble).expand({tokens, -1}))
          .t();
  for (int64_t s = 0; s < sequences.count(); ++s) {
    const int64_t begin = sequences.offsets()[s], end = sequences.offsets()[s + 1];
    const auto q = args.q.slice(0, begin, end).transpose(0, 1);
    const auto k = args.k.slice(0, begin, end).repeat_interleave(repeat, 1).transpose(0, 1);
    const auto v = args.v.slice(0, begin, end).repeat_interleave(repeat, 1).transpose(0, 1);
    const auto upto = log_decay.slice(1, begin, end).cumsum(1);  // [H, n]
    const auto all = log_decay.slice(1, begin, end).sum(1, /*keepdim=*/true);
    const auto mask = at::exp((upto.unsqueeze(2) - upto.unsqueeze(1)).tril()).tril().to(type);
    const auto left = at::exp(all - upto).unsqueeze(2).to(type);
    auto o = at::matmul(at::matmul(q, k.transpose(1, 2)) * mask, v);
    auto state = at::matmul((k * left).transpose(1, 2), v);
    if (args.state.defined()) {
      const auto initial = args.state[s].to(type);
      o = o + at::matmul(q * at::exp(upto).unsqueeze(2).to(type), initial);
      state = state + initial * at::exp(all).unsqueeze(2).to(type);
    }
    outputs.push_back((o * args.scale).transpose(0, 1));
    states.push_back(state);
  }
  return {at::cat(outputs), at::stack(states)};
}

struct Outcome {
  LightningResult result;
  std::vector<at::Tensor> gradients;  // q, k, v, state if there is one, log_decay if there is one
};

// Runs f on leaves of the given type and propagates fixed gradients of o and the final state.
template <class F>
Outcome run(const F& f, const LightningArgs& args, const Sequences& sequences, at::ScalarType dtype,
            bool use_state_gradient = true) {
  LightningArgs leaves = args;
  leaves.q = leaf(args.q, dtype);
  leaves.k = leaf(args.k, dtype);
  leaves.v = leaf(args.v, dtype);
  std::vector<at::Tensor> inputs{leaves.q, leaves.k, leaves.v};
  if (args.state.defined()) {
    leaves.state = leaf(args.state, dtype == at::kDouble ? at::kDouble : at::kFloat);
    inputs.push_back(leaves.state);
  }
  if (args.log_decay.defined()) {
    leaves.log_decay = leaf(args.log_decay, at::kDouble);
    inputs.push_back(leaves.log_decay);
  }
  Outcome out{f(leaves, sequences), {}};
  std::vector<at::Tensor> outputs{out.result.o};
  std::vector<at::Tensor> gradients{
      random_tensor(out.result.o.sizes(), 5, args.q.scalar_type()).to(out.result.o.options())};
  if (use_state_gradient) {
    outputs.push_back(out.result.state);
    gradients.push_back(random_tensor(out.result.state.sizes(), 6).to(out.result.state.options()));
  }
  out.gradients = torch::autograd::grad(outputs, inputs, gradients);
  return out;
}

inline LightningResult fast(const LightningArgs& args, const Sequences& sequences) {
  return lightning_attention(args, sequences, Kernels::kFast);
}

inline LightningResult reference(const LightningArgs& args, const Sequences& sequences) {
  return lightning_attention(args, sequences, Kernels::kReference);
}

// `plain_formula`: what is computed, in plain arithmetic of the case's type.
template <class Plain = decltype(quadratic)>
void check_case(const Case& c, const Plain& plain_formula = quadratic) {
  const test::PoisonUninitialized poison;
  const auto args = make_args(c);
  const auto sequences = sequences_of(c.lengths);
  const auto want = run(quadratic, args, sequences, at::kDouble);
  const auto plain = run(plain_formula, args, sequences, c.dtype);
  const char* names[] = {"dq", "dk", "dv", c.with_state ? "dstate" : "ddecay", "ddecay"};
  for (const bool is_fast : {true, false}) {
    SCOPED_TRACE(is_fast ? "fast" : "reference");
    const auto got = run(is_fast ? fast : reference, args, sequences, c.dtype);
    EXPECT_EQ(got.result.o.scalar_type(), c.dtype);
    EXPECT_EQ(got.result.state.scalar_type(), at::kFloat);
    expect_close("o", got.result.o, want.result.o, plain.result.o);
    expect_close("state", got.result.state, want.result.state, plain.result.state);
    for (size_t i = 0; i < got.gradients.size(); ++i) {
      expect_close(names[i], got.gradients[i], want.gradients[i], plain.gradients[i]);
    }
  }
}

inline LightningArgs on_gpu(LightningArgs args) {
  for (auto part : {&LightningArgs::q, &LightningArgs::k, &LightningArgs::v, &LightningArgs::state,
                    &LightningArgs::log_decay})
    if ((args.*part).defined()) args.*part = (args.*part).cuda();
  return args;
}

}  // namespace halo::lightning_test
