// Checks, choice of form and the autograd node of causal attention.
#include "halo/kernels/attention/attention.h"

#include "ATen/ATen.h"
#include "halo/base/check.h"
#include "halo/kernels/attention/attention_forms.h"
#include "halo/kernels/common/operation.h"
#include "torch/csrc/autograd/custom_function.h"

namespace halo {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

void check(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
           const Sequences& sequences, Kernels kernels) {
  HALO_CHECK(
      q.dim() == 3 && k.dim() == 3 && k.sizes() == v.sizes() && k.size(2) == q.size(2),
      "attention: q must be [tokens, heads, dimension], k and v [tokens, groups, dimension]");
  const int64_t tokens = sequences.num_tokens(), heads = q.size(1), groups = k.size(1);
  HALO_CHECK(q.size(0) == tokens && k.size(0) == tokens,
             "attention: q has {} tokens, k {}, the sequences {}", q.size(0), k.size(0), tokens);
  HALO_CHECK(groups > 0 && heads % groups == 0,
             "attention: {} query heads cannot share {} key/value heads evenly", heads, groups);
  HALO_CHECK(q.is_floating_point() && k.scalar_type() == q.scalar_type() &&
                 v.scalar_type() == q.scalar_type(),
             "attention: q, k and v must share one floating type");
  HALO_CHECK(kernels == Kernels::kFast || q.is_cpu(), "attention: the reference runs on the CPU");
}

// The type the kernels compute in.
at::Tensor compute_type(const at::Tensor& x) {
  return x.is_cpu() ? x.to(at::kFloat).contiguous() : x.contiguous();
}

// x [N, H, d] summed over the heads that share keys and values, into `like`'s shape and type.
at::Tensor sum_heads(const at::Tensor& x, const at::Tensor& like) {
  const int64_t heads = x.size(1), groups = like.size(1);
  if (groups == heads) return x.to(like.scalar_type());
  return x.view({x.size(0), groups, heads / groups, x.size(2)})
      .sum(2, /*keepdim=*/false, at::kFloat)
      .to(like.scalar_type());
}

AttentionForward fast_forward(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                              double scale, const Sequences& sequences) {
  if (sequences.num_tokens() == 0) return {.o = at::empty_like(q, at::MemoryFormat::Contiguous)};
  const auto forward = q.is_cpu() ? attention_cpu : attention_aten;
  auto out = forward(compute_type(q), compute_type(k), compute_type(v), scale, sequences);
  out.o = out.o.to(q.scalar_type());
  return out;
}

AttentionGradients fast_backward(const at::Tensor& d_o, const at::Tensor& q, const at::Tensor& k,
                                 const at::Tensor& v, AttentionForward forward,
                                 const AttentionSettings& settings, const Sequences& sequences) {
  if (sequences.num_tokens() == 0) {
    return {at::empty_like(q), at::empty_like(k), at::empty_like(v)};
  }
  forward.o = compute_type(forward.o);
  const at::Tensor g = compute_type(d_o), q_ = compute_type(q), k_ = compute_type(k),
                   v_ = compute_type(v);
  const AttentionGradients d =
      q.is_cpu() ? attention_cpu_backward(g, q_, k_, v_, forward, settings.scale, sequences)
                 : attention_aten_backward(g, q_, k_, v_, forward, settings, sequences);
  return {d.q.to(q.scalar_type()), sum_heads(d.k, k), sum_heads(d.v, v)};
}

AttentionForward forward_of(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                            const Sequences& sequences, const AttentionSettings& settings) {
  if (settings.kernels == Kernels::kReference) {
    return {.o = attention_reference(q, k, v, settings.scale, sequences).to(q.scalar_type())};
  }
  return fast_forward(q, k, v, settings.scale, sequences);
}

struct AttentionNode : torch::autograd::Function<AttentionNode> {
  static at::Tensor forward(AutogradContext* context, const at::Tensor& q, const at::Tensor& k,
                            const at::Tensor& v, const Sequences& sequences,
                            const AttentionSettings& settings) {
    const AttentionForward out = forward_of(q, k, v, sequences, settings);
    context->save_for_backward(
        {q, k, v, out.o, out.log_sums, out.seed, out.offset, out.cudnn_log_sums});
    context->saved_data["settings"] = keep(settings);
    context->saved_data["sequences"] = keep(sequences);
    return out.o;
  }

  static variable_list backward(AutogradContext* context, const variable_list& gradients) {
    const auto saved = context->get_saved_variables();
    const auto &q = saved[0], &k = saved[1], &v = saved[2];
    const auto settings = kept<AttentionSettings>(context->saved_data["settings"]);
    const auto sequences = kept<Sequences>(context->saved_data["sequences"]);
    AttentionForward forward{saved[3], saved[4], saved[5], saved[6], saved[7]};
    // The reference keeps no statistics; the fast form makes them.
    if (!forward.log_sums.defined()) forward = fast_forward(q, k, v, settings.scale, sequences);
    auto d = fast_backward(gradients[0], q, k, v, forward, settings, sequences);
    return {d.q, d.k, d.v, {}, {}};
  }
};

}  // namespace

at::Tensor causal_attention(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                            const Sequences& sequences, const AttentionSettings& settings) {
  check(q, k, v, sequences, settings.kernels);
  if (!records({q, k, v})) return forward_of(q, k, v, sequences, settings).o;
  return AttentionNode::apply(q, k, v, sequences, settings);
}

}  // namespace halo
