// Slopes, checks, choice of form, and the autograd node of lightning attention.
#include "halo/kernels/lightning/lightning.h"

#include <algorithm>
#include <cmath>
#include <numbers>
#include <optional>

#include "ATen/ATen.h"
#include "halo/base/check.h"
#include "halo/kernels/common/operation.h"
#include "halo/kernels/lightning/lightning_forms.h"
#include "torch/csrc/autograd/custom_function.h"

namespace halo {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

// On the CPU sequences up to this length (decoding, mostly) run token by token: the chunked form's
// many small operations would cost more than they save.
constexpr int64_t kShortSequence = 16;

void check(const LightningArgs& args, const Sequences& sequences, Kernels kernels) {
  const auto &q = args.q, &k = args.k, &v = args.v;
  HALO_CHECK(q.dim() == 3 && k.dim() == 3 && v.dim() == 3,
             "lightning: q, k and v must be [tokens, heads, dimension]");
  const int64_t tokens = sequences.num_tokens(), heads = q.size(1), groups = k.size(1);
  HALO_CHECK(q.size(0) == tokens && k.size(0) == tokens && v.size(0) == tokens,
             "lightning: q, k, v have {}, {}, {} tokens, the sequences {}", q.size(0), k.size(0),
             v.size(0), tokens);
  HALO_CHECK(groups > 0 && v.size(1) == groups && heads % groups == 0,
             "lightning: {} query heads over {} key and {} value heads", heads, groups, v.size(1));
  HALO_CHECK(q.size(2) == k.size(2), "lightning: q has dimension {}, k {}", q.size(2), k.size(2));
  HALO_CHECK(q.is_floating_point() && k.scalar_type() == q.scalar_type() &&
                 v.scalar_type() == q.scalar_type(),
             "lightning: q, k and v must share one floating type");
  HALO_CHECK(static_cast<int64_t>(args.slopes.size()) == heads, "lightning: {} slopes for {} heads",
             args.slopes.size(), heads);
  HALO_CHECK(kernels == Kernels::kFast || q.is_cpu(), "lightning: the reference runs on the CPU");
  if (args.log_decay.defined()) {
    HALO_CHECK(args.log_decay.sizes() == at::IntArrayRef({tokens, heads}) &&
                   args.log_decay.scalar_type() == at::kDouble,
               "lightning: the log-decays must be fp64 [{}, {}]", tokens, heads);
  }
  if (!args.state.defined()) return;
  const std::vector<int64_t> shape{sequences.count(), heads, q.size(2), v.size(2)};
  HALO_CHECK(args.state.sizes() == shape && args.state.scalar_type() == at::kFloat,
             "lightning: the state must be fp32 [{}, {}, {}, {}]", shape[0], shape[1], shape[2],
             shape[3]);
}

bool has_lightning_cpu(const LightningArgs& args) {
  return has_cpu_form(args.q) && !args.log_decay.defined();
}

LightningResult forward_of(const LightningArgs& args, const Sequences& sequences, Kernels kernels) {
  if (has_lightning_cuda(args)) {
    return lightning_cuda(args, sequences, lightning_kernel_for(args.q));
  }
  const bool recurrent = kernels == Kernels::kReference ||
                         (args.q.is_cpu() && sequences.max_length() <= kShortSequence);
  if (recurrent) return lightning_reference(args, sequences);
  return has_lightning_cpu(args) ? lightning_cpu(args, sequences) : lightning_aten(args, sequences);
}

LightningGradients backward_of(const LightningArgs& args, const Sequences& sequences,
                               const at::Tensor& d_o, const at::Tensor& d_state) {
  if (has_lightning_cuda(args)) {
    return lightning_cuda_backward(args, sequences, d_o, d_state, lightning_kernel_for(args.q));
  }
  const auto form = has_lightning_cpu(args) ? lightning_cpu_backward : lightning_aten_backward;
  return form(args, sequences, d_o, d_state);
}

struct LightningNode : torch::autograd::Function<LightningNode> {
  static variable_list forward(AutogradContext* context, const at::Tensor& q, const at::Tensor& k,
                               const at::Tensor& v, const std::optional<at::Tensor>& state,
                               const std::optional<at::Tensor>& log_decay,
                               const LightningArgs& args, const Sequences& sequences,
                               Kernels kernels) {
    context->save_for_backward({q, k, v, args.state, args.log_decay});
    context->saved_data["slopes"] = args.slopes;
    context->saved_data["scale"] = args.scale;
    context->saved_data["sequences"] = keep(sequences);
    context->set_materialize_grads(false);
    const auto out = forward_of({q, k, v, args.slopes, args.scale, state.value_or(at::Tensor()),
                                 log_decay.value_or(at::Tensor())},
                                sequences, kernels);
    return {out.o, out.state};
  }

  static variable_list backward(AutogradContext* context, const variable_list& gradients) {
    const auto saved = context->get_saved_variables();
    const LightningArgs args{saved[0],
                             saved[1],
                             saved[2],
                             context->saved_data["slopes"].toDoubleVector(),
                             context->saved_data["scale"].toDouble(),
                             saved[3],
                             saved[4]};
    const auto sequences = kept<Sequences>(context->saved_data["sequences"]);
    const auto d = backward_of(args, sequences, gradients[0], gradients[1]);
    return {d.q, d.k, d.v, args.state.defined() ? d.state : at::Tensor(), d.log_decay, {}, {}, {}};
  }
};

at::Tensor softplus_of(const at::Tensor& x) {
  if (!x.is_cpu()) return at::softplus(x);
  // One by one: what LibTorch leaves over from its vectors may differ in the last bit, and then a
  // token's decay would depend on its place in the batch.
  at::Tensor out = x.clone(at::MemoryFormat::Contiguous);
  double* data = out.mutable_data_ptr<double>();
  std::transform(data, data + out.numel(), data,
                 [](double a) { return std::max(a, 0.0) + std::log1p(std::exp(-std::abs(a))); });
  return out;
}

// So that a layer that runs again in backward has the bits that it had without gradients.
struct SoftplusNode : torch::autograd::Function<SoftplusNode> {
  static at::Tensor forward(AutogradContext* context, const at::Tensor& x) {
    context->save_for_backward({x});
    return softplus_of(x);
  }

  static variable_list backward(AutogradContext* context, const variable_list& gradients) {
    return {gradients[0] * context->get_saved_variables()[0].sigmoid()};
  }
};

}  // namespace

std::vector<double> alibi_slopes(int64_t num_heads) {
  HALO_CHECK(num_heads > 0, "lightning: {} heads", num_heads);
  int64_t power = 1;
  while (power * 2 <= num_heads) power *= 2;
  std::vector<double> slopes;
  for (int64_t h = 0; h < power; ++h) slopes.push_back(std::exp2(-8.0 * (h + 1) / power));
  // Not a power of two: every second slope of twice as many heads, from the first on.
  for (int64_t h = 0; h < num_heads - power; ++h) {
    slopes.push_back(std::exp2(-8.0 * (2 * h + 1) / (2 * power)));
  }
  return slopes;
}

at::Tensor gated_log_decay(const at::Tensor& gate, const std::vector<double>& slopes) {
  HALO_CHECK(gate.dim() == 2 && gate.size(1) == std::ssize(slopes),
             "lightning: gates must be [tokens, {}]", slopes.size());
  const at::Tensor wide = gate.to(at::kDouble);
  const at::Tensor softplus = records({wide}) ? SoftplusNode::apply(wide) : softplus_of(wide);
  const at::Tensor each = to_device(at::tensor(slopes, at::kDouble), gate.device());
  return softplus * (each / -std::numbers::ln2);
}

LightningResult lightning_attention(const LightningArgs& args, const Sequences& sequences,
                                    Kernels kernels) {
  check(args, sequences, kernels);
  if (!records({args.q, args.k, args.v, args.state, args.log_decay}))
    return forward_of(args, sequences, kernels);
  auto out = LightningNode::apply(args.q, args.k, args.v, if_defined(args.state),
                                  if_defined(args.log_decay), args, sequences, kernels);
  return {out[0], out[1]};
}

}  // namespace halo
