// y = x W^T + b: checks, the forms of the forward pass, and the node that adds the weight gradient
// into its fp32 buffer.
#include "halo/kernels/linear/linear.h"

#include "ATen/ATen.h"
#include "halo/kernels/common/operation.h"
#include "halo/kernels/linear/linear_forms.h"
#include "torch/csrc/autograd/custom_function.h"

namespace halo {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

// Activations in fp32 and a weight that is only read, on a CPU: bound by the weight's bytes.
bool is_mixed(const at::Tensor& x, const Weight& w) {
  return x.is_cpu() && x.scalar_type() == at::kFloat && w.value.scalar_type() == at::kBFloat16 &&
         !w.trained();
}

at::Tensor product(const at::Tensor& x, const at::Tensor& w, const at::Tensor& bias,
                   Kernels kernels) {
  if (x.scalar_type() != w.scalar_type()) {
    // With more rows the library's product makes up for the copy in fp32.
    constexpr int64_t kFewRows = 32;
    const bool few = x.size(0) <= kFewRows || kernels == Kernels::kReference;
    return few ? linear_reference(x.contiguous(), w, bias)
               : at::linear(x, w.to(at::kFloat), if_defined(bias));
  }
  if (kernels == Kernels::kFast) return at::linear(x, w, if_defined(bias));
  const at::Tensor bias_f32 = bias.defined() ? bias.to(at::kFloat) : bias;
  return linear_reference(x.to(at::kFloat).contiguous(), w.to(at::kFloat), bias_f32)
      .to(x.scalar_type());
}

// grad += dy^T x, summed in fp32.
void add_weight_gradient(at::Tensor grad, const at::Tensor& dy, const at::Tensor& x) {
  if (x.is_cuda() && x.scalar_type() != at::kFloat) {
    at::addmm_out(grad, grad, dy.t(), x, at::kFloat);
  } else {
    grad.addmm_(dy.to(at::kFloat).t(), x.to(at::kFloat));
  }
}

struct LinearNode : torch::autograd::Function<LinearNode> {
  static at::Tensor forward(AutogradContext* ctx, const at::Tensor& x, const at::Tensor& w,
                            const std::optional<at::Tensor>& /*bias*/, const Weight& weight,
                            const Weight& bias, Kernels kernels) {
    ctx->save_for_backward({weight.trained() ? x : at::Tensor(), w});
    ctx->saved_data["w_grad"] = weight.grad;
    ctx->saved_data["bias_grad"] = bias.grad;
    return product(x, w, bias.value, kernels);
  }

  static variable_list backward(AutogradContext* ctx, const variable_list& grads) {
    const at::Tensor dy = grads[0].contiguous();
    const variable_list saved = ctx->get_saved_variables();
    const at::Tensor w_grad = ctx->saved_data["w_grad"].toTensor();
    at::Tensor bias_grad = ctx->saved_data["bias_grad"].toTensor();
    if (w_grad.defined()) add_weight_gradient(w_grad, dy, saved[0]);
    if (bias_grad.defined()) bias_grad.add_(at::sum(dy, {0}, /*keepdim=*/false, at::kFloat));
    const at::Tensor dx = ctx->needs_input_grad(0) ? at::mm(dy, saved[1]) : at::Tensor();
    return {dx, {}, {}, {}, {}, {}};
  }
};

}  // namespace

at::Tensor linear(const at::Tensor& x, const Weight& w, const Weight& bias, Kernels kernels) {
  HALO_CHECK(x.dim() == 2 && w.defined() && w.value.dim() == 2 && w.value.size(1) == x.size(1),
             "linear: x must be [N, I] and the weight [O, I]");
  check_weight("linear", w, w.value.sizes(), is_mixed(x, w) ? w.value : x);
  if (bias.defined()) check_weight("linear", bias, {w.value.size(0)}, x);
  HALO_CHECK(kernels == Kernels::kFast || x.is_cpu(), "linear: the reference form runs on the CPU");
  if (!records({x, w.value, bias.value})) return product(x, w.value, bias.value, kernels);
  return LinearNode::apply(x, w.value, if_defined(bias.value), w, bias, kernels);
}

}  // namespace halo
