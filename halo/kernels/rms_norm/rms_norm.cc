// RMSNorm and the residual stream's step: checks, dispatch and autograd nodes.
#include "halo/kernels/rms_norm/rms_norm.h"

#include "ATen/ATen.h"
#include "halo/kernels/common/operation.h"
#include "halo/kernels/rms_norm/rms_norm_forms.h"
#include "torch/csrc/autograd/custom_function.h"

namespace halo {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

at::Tensor forward_of(const at::Tensor& x, const at::Tensor& w, double eps) {
  if (has_cpu_form(x)) return norm_forward_cpu(x, w, eps);
  if (has_norm_cuda_kernels(CudaKernels::kRmsNorm, x, w)) return norm_forward_cuda(x, w, eps, {});
  return norm_forward(x, w, eps);
}

// {residual + delta, its norm}
variable_list add_forward_of(const at::Tensor& residual, const at::Tensor& delta,
                             const at::Tensor& w, double eps) {
  if (has_cpu_form(residual)) {
    const auto [sum, normed] = add_norm_forward_cpu(residual, delta, w, eps);
    return {sum, normed};
  }
  if (has_norm_cuda_kernels(CudaKernels::kRmsNorm, residual, w)) {
    const auto [sum, normed] = add_norm_forward_cuda(residual, delta, w, eps);
    return {sum, normed};
  }
  const at::Tensor sum = residual + delta;
  return {sum, norm_forward(sum, w, eps)};
}

// The gradient of x from that of its norm, plus `direct` (may be undefined), that of x itself.
at::Tensor backward_of(const at::Tensor& dy, const at::Tensor& x, const at::Tensor& w, double eps,
                       const at::Tensor& w_grad, const at::Tensor& direct) {
  if (has_cpu_form(x)) return norm_backward_cpu(dy, x, w, eps, w_grad, direct);
  if (has_norm_cuda_kernels(CudaKernels::kRmsNorm, x, w)) {
    return norm_backward_cuda(dy, x, w, eps, {}, w_grad, direct).x;
  }
  at::Tensor dx = norm_backward(dy, x, w, eps, w_grad);
  if (direct.defined()) dx.add_(direct);
  return dx;
}

struct RmsNormNode : torch::autograd::Function<RmsNormNode> {
  static at::Tensor forward(AutogradContext* ctx, const at::Tensor& x, const at::Tensor& w,
                            const Weight& weight, double eps) {
    ctx->save_for_backward({x, w});
    ctx->saved_data["grad"] = weight.grad;
    ctx->saved_data["eps"] = eps;
    return forward_of(x, w, eps);
  }

  static variable_list backward(AutogradContext* ctx, const variable_list& grads) {
    const variable_list saved = ctx->get_saved_variables();
    return {backward_of(grads[0].contiguous(), saved[0], saved[1],
                        ctx->saved_data["eps"].toDouble(), ctx->saved_data["grad"].toTensor(), {}),
            {},
            {},
            {}};
  }
};

struct AddRmsNormNode : torch::autograd::Function<AddRmsNormNode> {
  static variable_list forward(AutogradContext* ctx, const at::Tensor& residual,
                               const at::Tensor& delta, const at::Tensor& w, const Weight& weight,
                               double eps) {
    ctx->set_materialize_grads(false);
    variable_list out = add_forward_of(residual, delta, w, eps);
    ctx->save_for_backward({out[0], w});
    ctx->saved_data["grad"] = weight.grad;
    ctx->saved_data["eps"] = eps;
    return out;
  }

  static variable_list backward(AutogradContext* ctx, const variable_list& grads) {
    const variable_list saved = ctx->get_saved_variables();
    at::Tensor dx = grads[0].defined() ? grads[0].contiguous() : at::Tensor();
    if (grads[1].defined()) {
      dx = backward_of(grads[1].contiguous(), saved[0], saved[1], ctx->saved_data["eps"].toDouble(),
                       ctx->saved_data["grad"].toTensor(), dx);
    }
    return {dx, dx, {}, {}, {}};
  }
};

void check(const char* operation, const at::Tensor& x, const Weight& w) {
  HALO_CHECK(x.dim() == 2 && w.defined(), "{}: x must be [N, D] and have a weight", operation);
  check_weight(operation, w, {x.size(1)}, x);
}

}  // namespace

at::Tensor rms_norm(const at::Tensor& x, const Weight& w, double eps) {
  check("rms_norm", x, w);
  const at::Tensor rows = x.contiguous();
  if (!records({rows, w.value})) return forward_of(rows, w.value, eps);
  return RmsNormNode::apply(rows, w.value, w, eps);
}

std::pair<at::Tensor, at::Tensor> add_rms_norm(const at::Tensor& residual, const at::Tensor& delta,
                                               const Weight& w, double eps) {
  check("add_rms_norm", residual, w);
  HALO_CHECK(delta.sizes() == residual.sizes() && delta.scalar_type() == residual.scalar_type(),
             "add_rms_norm: residual and delta must have one shape and type");
  const at::Tensor a = residual.contiguous();
  const at::Tensor b = delta.contiguous();
  const variable_list out = records({a, b, w.value}) ? AddRmsNormNode::apply(a, b, w.value, w, eps)
                                                     : add_forward_of(a, b, w.value, eps);
  return {out[0], out[1]};
}

}  // namespace halo
