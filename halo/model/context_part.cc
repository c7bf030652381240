#include "halo/model/context_part.h"

#include <algorithm>
#include <cmath>

#include "ATen/ATen.h"
#include "halo/base/check.h"
#include "halo/kernels/common/operation.h"
#include "torch/csrc/autograd/autograd.h"
#include "torch/csrc/autograd/custom_function.h"

namespace halo {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

// What is left of a state after so many tokens that it is 2^-40 of what it was changes no sum in
// fp32.
const double kForgotten = 40 * std::log(2.0);

at::Tensor exchanged(const at::Tensor& x, const ContextGroup& group) {
  return group.ranks->all_to_all(x.contiguous(), group.size);
}

// Rank r's x[p] becomes rank p's y[r], so gradients take the same way.
struct ExchangeNode : torch::autograd::Function<ExchangeNode> {
  static at::Tensor forward(AutogradContext* context, const at::Tensor& x,
                            const ContextGroup& group) {
    context->saved_data["group"] = keep(group);
    return exchanged(x, group);
  }

  static variable_list backward(AutogradContext* context, const variable_list& gradients) {
    const auto group = kept<ContextGroup>(context->saved_data["group"]);
    return {exchanged(gradients[0], group), {}};
  }
};

// What the state behind this part has decayed to where each rank of the group begins, [C, H]; 0
// where the sequence at this part's end does not reach.
std::vector<double> decays_ahead(const std::vector<double>& slopes, const ContextPart& part) {
  const std::vector<int64_t>& offsets = part.whole.offsets();
  const int64_t end = part.begin() + part.tokens();
  // The end of the sequence that this part's last token is in.
  const int64_t reach = *std::lower_bound(offsets.begin(), offsets.end(), end);
  std::vector<double> decays;
  for (int64_t p = 0; p < part.group.size; ++p) {
    const int64_t begin = part.begin_of(p);
    const bool reached = begin >= end && begin < reach;
    for (const double slope : slopes) {
      decays.push_back(reached ? std::exp(-slope * static_cast<double>(begin - end)) : 0.0);
    }
  }
  return decays;
}

// decays_ahead [C, H, 1, 1].
at::Tensor decay_factors(const std::vector<double>& slopes, const ContextPart& part,
                         at::Device device) {
  const at::Tensor decays = at::tensor(decays_ahead(slopes, part), at::kFloat);
  return to_device(decays.view({part.group.size, -1, 1, 1}), device);
}

// Tokens of a sequence of `length` for which what crosses its cut counts.
int64_t reach_of(const std::vector<double>& slopes, int64_t length) {
  const double least = *std::min_element(slopes.begin(), slopes.end());
  return static_cast<int64_t>(std::min(double(length), std::ceil(kForgotten / least)));
}

// The sum over tokens t of factor exp(-slope_h age_t) x_t y_t^T, fp32 [H, dx, dy]: x [n, H or G,
// dx], y [n, H or G, dy], age [n] fp64.
at::Tensor decayed_sum(const at::Tensor& x, const at::Tensor& y, const at::Tensor& age,
                       const std::vector<double>& slopes, double factor) {
  const auto heads = static_cast<int64_t>(slopes.size());
  const auto of_heads = [&](const at::Tensor& some) {
    const at::Tensor wide = some.to(at::kFloat);
    return some.size(1) == heads ? wide : wide.repeat_interleave(heads / some.size(1), 1);
  };
  const at::Tensor slope = to_device(at::tensor(slopes, at::kDouble), x.device());
  const at::Tensor weight = (-slope * age.unsqueeze(1)).exp().mul(factor).to(at::kFloat);
  const at::Tensor weighted = of_heads(x) * weight.unsqueeze(2);
  return at::bmm(weighted.permute({1, 2, 0}), of_heads(y).transpose(0, 1));
}

at::Tensor ages(int64_t count, const at::Tensor& like) {
  return at::arange(count, like.options().dtype(at::kDouble));
}

// What a part leaves of its last sequence, from a zero state.
at::Tensor state_behind(const LightningArgs& args, const Sequences& sequences) {
  const int64_t count = reach_of(args.slopes, sequences.length(sequences.count() - 1));
  const auto last = [&](const at::Tensor& x) { return x.narrow(0, x.size(0) - count, count); };
  return decayed_sum(last(args.k), last(args.v), ages(count, args.k).flip(0), args.slopes, 1);
}

// The gradient of the state before a part's first sequence, of the outputs' d_o.
at::Tensor gradient_of_state(const LightningArgs& args, const Sequences& sequences,
                             const at::Tensor& d_o) {
  const int64_t count = reach_of(args.slopes, sequences.length(0));
  return decayed_sum(args.q.narrow(0, 0, count), d_o.narrow(0, 0, count), ages(count, d_o) + 1,
                     args.slopes, args.scale);
}

// `state` [H, dk, dv] as that of sequence s among zeros [S, H, dk, dv].
at::Tensor among_zeros(const at::Tensor& state, int64_t s, int64_t count) {
  at::Tensor all = at::zeros({count, state.size(0), state.size(1), state.size(2)}, state.options());
  all[s].copy_(state);
  return all;
}

LightningResult run_part(const LightningArgs& args, const Sequences& sequences,
                         const ContextPart& part, Kernels kernels) {
  LightningArgs from = args;
  {
    at::NoGradGuard no_grad;  // the way back is LightningPartNode's
    const at::Tensor behind = state_behind(args, sequences);
    const at::Tensor before =
        exchanged(behind * decay_factors(args.slopes, part, behind.device()), part.group).sum(0);
    from.state = among_zeros(before, 0, sequences.count());
  }
  return lightning_attention(from, sequences, kernels);
}

// A part that is run, on leaves of its own, until it is run back.
struct PartRun {
  LightningArgs args;
  Sequences sequences;
  ContextPart part;
  LightningResult result;
};

// What left the part is told to the kernels as the gradient of its final state, so that they add it
// to the other sums before these are rounded. Autograd would add it to k's and v's, rounded twice.
struct LightningPartNode : torch::autograd::Function<LightningPartNode> {
  static at::Tensor forward(AutogradContext* context, const at::Tensor& q, const at::Tensor& k,
                            const at::Tensor& v, const LightningArgs& args,
                            const Sequences& sequences, const ContextPart& part, Kernels kernels) {
    const auto leaf = [](const at::Tensor& x) { return x.detach().requires_grad_(true); };
    PartRun run{{leaf(q), leaf(k), leaf(v), args.slopes, args.scale, {}}, sequences, part, {}};
    {
      at::AutoGradMode with_gradients(true);
      run.result = run_part(run.args, sequences, part, kernels);
    }
    const at::Tensor o = run.result.o.detach();
    context->saved_data["run"] = keep(std::move(run));
    return o;
  }

  static variable_list backward(AutogradContext* context, const variable_list& gradients) {
    const auto run = kept<PartRun>(context->saved_data["run"]);
    context->saved_data.clear();  // what the kernels kept is freed behind this
    const LightningArgs& args = run.args;
    const at::Tensor d_before = gradient_of_state(args, run.sequences, gradients[0]);
    const ContextGroup& group = run.part.group;
    const at::Tensor d_before_others = exchanged(d_before.expand({group.size, -1, -1, -1}), group);
    const at::Tensor d_behind =
        (d_before_others * decay_factors(args.slopes, run.part, d_before.device())).sum(0);
    const int64_t count = run.sequences.count();
    variable_list result =
        torch::autograd::grad({run.result.o, run.result.state}, {args.q, args.k, args.v},
                              {gradients[0], among_zeros(d_behind, count - 1, count)});
    result.resize(7);  // of `args` and what follows
    return result;
  }
};

}  // namespace

std::vector<int64_t> offsets_within(const std::vector<int64_t>& offsets, int64_t begin,
                                    int64_t count) {
  std::vector<int64_t> within{0};
  for (const int64_t offset : offsets) {
    if (offset > begin && offset < begin + count) within.push_back(offset - begin);
  }
  within.push_back(count);
  return within;
}

bool can_share_heads(int64_t ranks, int64_t heads, int64_t kv_heads) {
  return heads % ranks == 0 && (kv_heads % ranks == 0 || ranks % kv_heads == 0);
}

at::Tensor context_attention(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                             const ContextPart& part, const AttentionSettings& settings) {
  const int64_t size = part.group.size, tokens = part.tokens(), head_dim = q.size(2);
  HALO_CHECK(can_share_heads(size, q.size(1), k.size(1)),
             "context ranks: {} cannot share {} query and {} key/value heads evenly", size,
             q.size(1), k.size(1));
  const int64_t heads = q.size(1) / size, kv_heads = std::max<int64_t>(1, k.size(1) / size);
  // x [n, H, d] as [C, n, heads of a rank, d]: where there are fewer than ranks, copies.
  const auto by_heads = [&](const at::Tensor& x) {
    const int64_t copies = std::max<int64_t>(1, size / x.size(1));
    return x.unsqueeze(2)
        .expand({tokens, x.size(1), copies, head_dim})
        .reshape({tokens, size, -1, head_dim})
        .transpose(0, 1);
  };
  const at::Tensor all =
      ExchangeNode::apply(at::cat({by_heads(q), by_heads(k), by_heads(v)}, 2), part.group)
          .flatten(0, 1);
  const auto mine = [&](int64_t first, int64_t count) {
    return all.narrow(1, first, count).contiguous();
  };
  const at::Tensor o = causal_attention(mine(0, heads), mine(heads, kv_heads),
                                        mine(heads + kv_heads, kv_heads), part.whole, settings);
  const at::Tensor back =
      ExchangeNode::apply(o.reshape({size, tokens, heads, head_dim}), part.group);
  return back.transpose(0, 1).flatten(1, 2);
}

at::Tensor context_lightning(const LightningArgs& args, const Sequences& sequences,
                             const ContextPart& part, Kernels kernels) {
  HALO_CHECK(!args.log_decay.defined(), "context ranks: decays must be fixed, not learned");
  HALO_CHECK(!args.state.defined(), "context ranks: a part has its state from the others");
  if (!records({args.q, args.k, args.v})) return run_part(args, sequences, part, kernels).o;
  return LightningPartNode::apply(args.q, args.k, args.v, args, sequences, part, kernels);
}

}  // namespace halo
