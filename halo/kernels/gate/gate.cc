// Norm and sigmoid gate of a mixer's output: dispatch, the LibTorch form, and the node.
//   y = n sigma(g), n = rms_norm(o):  dn = dy sigma(g),  dg = dy n sigma(g) (1 - sigma(g))
#include "halo/kernels/gate/gate.h"

#include "ATen/ATen.h"
#include "halo/kernels/common/operation.h"
#include "halo/kernels/gate/gate_forms.h"
#include "halo/kernels/rms_norm/rms_norm.h"
#include "halo/kernels/rms_norm/rms_norm_forms.h"
#include "torch/csrc/autograd/custom_function.h"

namespace halo {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

at::Tensor forward_of(const at::Tensor& o, const at::Tensor& norm, double eps,
                      const at::Tensor& gate) {
  if (has_cpu_form(o)) return norm_gate_forward_cpu(o, norm, eps, gate);
  if (has_norm_cuda_kernels(CudaKernels::kNormGate, o, norm)) {
    return norm_forward_cuda(o, norm, eps, gate);
  }
  const at::Tensor normed = norm.defined() ? norm_forward(o, norm, eps) : o;
  return at::sigmoid(gate).mul_(normed);
}

NormGateGradients backward_of(const at::Tensor& dy, const at::Tensor& o, const at::Tensor& norm,
                              double eps, const at::Tensor& gate, const at::Tensor& norm_grad) {
  if (has_cpu_form(o)) return norm_gate_backward_cpu(dy, o, norm, eps, gate, norm_grad);
  if (has_norm_cuda_kernels(CudaKernels::kNormGate, o, norm)) {
    const auto [d_o, d_gate] = norm_backward_cuda(dy, o, norm, eps, gate, norm_grad, {});
    return {d_o, d_gate};
  }
  const at::Tensor dy_f32 = dy.to(at::kFloat);
  const at::Tensor open = at::sigmoid(gate.to(at::kFloat));
  const at::Tensor normed = norm.defined() ? norm_forward(o, norm, eps) : o;
  const at::Tensor d_gate = at::sigmoid_backward(dy_f32 * normed, open).to(gate.scalar_type());
  at::Tensor d_o = dy_f32 * open;
  if (norm.defined()) d_o = norm_backward(d_o, o, norm, eps, norm_grad);
  return {d_o.to(o.scalar_type()), d_gate};
}

struct NormGateNode : torch::autograd::Function<NormGateNode> {
  static at::Tensor forward(AutogradContext* ctx, const at::Tensor& o, const at::Tensor& gate,
                            const std::optional<at::Tensor>& norm, const Weight& weight,
                            double eps) {
    ctx->save_for_backward({o, gate, norm.value_or(at::Tensor())});
    ctx->saved_data["grad"] = weight.grad;
    ctx->saved_data["eps"] = eps;
    return forward_of(o, weight.value, eps, gate);
  }

  static variable_list backward(AutogradContext* ctx, const variable_list& grads) {
    const variable_list saved = ctx->get_saved_variables();
    const auto [d_o, d_gate] =
        backward_of(grads[0].contiguous(), saved[0], saved[2], ctx->saved_data["eps"].toDouble(),
                    saved[1], ctx->saved_data["grad"].toTensor());
    return {d_o, d_gate, {}, {}, {}};
  }
};

}  // namespace

at::Tensor norm_gate(const at::Tensor& o, const Weight& norm, double eps, const at::Tensor& gate) {
  HALO_CHECK(norm.defined() || gate.defined(), "norm_gate: neither a norm nor a gate is given");
  if (!gate.defined()) return rms_norm(o, norm, eps);
  HALO_CHECK(o.dim() == 2 && gate.sizes() == o.sizes() && gate.scalar_type() == o.scalar_type(),
             "norm_gate: o and gate must have one shape [N, H*d] and type");
  if (norm.defined()) check_weight("norm_gate", norm, {o.size(1)}, o);
  const at::Tensor rows = o.contiguous();
  const at::Tensor gates = gate.contiguous();
  if (!records({rows, gates, norm.value})) return forward_of(rows, norm.value, eps, gates);
  return NormGateNode::apply(rows, gates, if_defined(norm.value), norm, eps);
}

}  // namespace halo
