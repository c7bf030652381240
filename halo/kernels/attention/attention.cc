// Checks, choice of form and the autograd node of causal attention.
#include "halo/kernels/attention/attention.h"

#include "ATen/ATen.h"
#include "halo/base/check.h"
#include "halo/kernels/attention/attention_forms.h"
#include "halo/kernels/operation.h"
#include "torch/csrc/autograd/custom_function.h"

namespace halo {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

void check(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
           const Sequences& sequences, KernelForm form) {
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
  HALO_CHECK(form == KernelForm::kFast || q.is_cpu(), "attention: the reference runs on the CPU");
}

at::Tensor reference_forward(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                             double scale, const Sequences& sequences) {
  auto out = at::empty_like(q, at::MemoryFormat::Contiguous);
  for (int64_t s = 0; s < sequences.count(); ++s) {
    const int64_t begin = sequences.offsets()[s], end = sequences.offsets()[s + 1];
    out.slice(0, begin, end)
        .copy_(reference_attention(q.slice(0, begin, end), k.slice(0, begin, end),
                                   v.slice(0, begin, end), scale));
  }
  return out;
}

struct AttentionNode : torch::autograd::Function<AttentionNode> {
  static at::Tensor forward(AutogradContext* context, const at::Tensor& q, const at::Tensor& k,
                            const at::Tensor& v, double scale, const Sequences& sequences,
                            KernelForm form) {
    AttentionForward out;
    if (form == KernelForm::kReference) {
      out.o = reference_forward(q, k, v, scale, sequences);
    } else {
      out = causal_attention_forward(q, k, v, scale, sequences);
    }
    variable_list saved{q, k, v, out.o};
    saved.insert(saved.end(), out.statistics.begin(), out.statistics.end());
    context->save_for_backward(saved);
    context->saved_data["scale"] = scale;
    context->saved_data["sequences"] = keep(sequences);
    return out.o;
  }

  static variable_list backward(AutogradContext* context, const variable_list& gradients) {
    const auto saved = context->get_saved_variables();
    const auto &q = saved[0], &k = saved[1], &v = saved[2];
    const double scale = context->saved_data["scale"].toDouble();
    const auto sequences = kept<Sequences>(context->saved_data["sequences"]);
    AttentionForward forward{saved[3], {saved.begin() + 4, saved.end()}};
    // The reference keeps no statistics; the fast form makes them.
    if (forward.statistics.empty()) forward = causal_attention_forward(q, k, v, scale, sequences);
    auto d = causal_attention_backward(gradients[0], q, k, v, forward, scale, sequences);
    return {d.q, d.k, d.v, {}, {}, {}};
  }
};

}  // namespace

at::Tensor causal_attention(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                            double scale, const Sequences& sequences, KernelForm form) {
  check(q, k, v, sequences, form);
  return AttentionNode::apply(q, k, v, scale, sequences, form);
}

}  // namespace halo
