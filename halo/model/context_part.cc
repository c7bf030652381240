#include "halo/model/context_part.h"

#include <algorithm>
#include <cmath>

#include "ATen/ATen.h"
#include "halo/base/check.h"
#include "halo/kernels/common/operation.h"
#include "torch/csrc/autograd/custom_function.h"

namespace halo {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

// What is left of a state after so many tokens that it is 2^-40 of what it was changes no sum in
// fp32.
const double kForgotten = 40 * std::log(2.0);

// Communicator::all_to_all. Rank r's x[p] becomes rank p's y[r], so gradients take the same way.
struct ExchangeNode : torch::autograd::Function<ExchangeNode> {
  static at::Tensor forward(AutogradContext* context, const at::Tensor& x,
                            const ContextGroup& group) {
    context->saved_data["group"] = keep(group);
    return group.ranks->all_to_all(x.contiguous(), group.size);
  }

  static variable_list backward(AutogradContext* context, const variable_list& gradients) {
    const auto group = kept<ContextGroup>(context->saved_data["group"]);
    return {group.ranks->all_to_all(gradients[0].contiguous(), group.size), {}};
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

// The state [H, dk, dv] before this part of the sequence that begins it, of what each rank has
// behind its own; zero where no sequence goes on.
at::Tensor state_before(const at::Tensor& behind, const std::vector<double>& slopes,
                        const ContextPart& part) {
  const at::Tensor decays =
      to_device(at::tensor(decays_ahead(slopes, part), at::kFloat), behind.device());
  return ExchangeNode::apply(behind * decays.view({part.group.size, behind.size(0), 1, 1}),
                             part.group)
      .sum(0);
}

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

at::Tensor with_state_before(const LightningArgs& args, const LightningResult& mine,
                             const Sequences& sequences, const ContextPart& part) {
  HALO_CHECK(!args.log_decay.defined(), "context ranks: decays must be fixed, not learned");
  const at::Tensor before = state_before(mine.state[sequences.count() - 1], args.slopes, part);
  // Of the sequence that begins the part, the tokens for which the state before it counts.
  const double least = *std::min_element(args.slopes.begin(), args.slopes.end());
  const auto count = static_cast<int64_t>(
      std::min(static_cast<double>(sequences.length(0)), std::ceil(kForgotten / least)));
  // o_t = scale g^(t+1) S^T q_t, in fp32 as the kernels have it.
  const at::Tensor slopes = to_device(at::tensor(args.slopes, at::kDouble), args.q.device());
  const at::Tensor age = at::arange(1, count + 1, slopes.options());
  const at::Tensor entry = ((-slopes * age.unsqueeze(1)).exp() * args.scale).to(at::kFloat);
  const at::Tensor q = args.q.narrow(0, 0, count).to(at::kFloat) * entry.unsqueeze(2);
  const at::Tensor added = at::bmm(q.transpose(0, 1), before).transpose(0, 1);
  const at::Tensor first = (mine.o.narrow(0, 0, count) + added).to(mine.o.scalar_type());
  return at::cat({first, mine.o.narrow(0, count, mine.o.size(0) - count)}, 0);
}

}  // namespace halo
