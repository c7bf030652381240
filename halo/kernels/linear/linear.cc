// y = x W^T + b: checks, the forms of the forward pass, and the node that adds the weight gradient
// into its fp32 buffer.
#include "halo/kernels/linear/linear.h"

#include <algorithm>
#include <cmath>

#include "ATen/ATen.h"
#include "halo/kernels/common/operation.h"
#include "halo/kernels/cuda/cuda_kernels.h"
#include "halo/kernels/linear/linear_forms.h"
#include "torch/csrc/autograd/custom_function.h"

namespace halo {

bool multiplies_bf16() {
#if defined(__x86_64__)
  return __builtin_cpu_supports("avx512bf16");
#else
  return false;
#endif
}

namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

// Activations in fp32 and a weight that is only read, on a CPU: bound by the weight's bytes.
bool is_mixed(const at::Tensor& x, const Weight& w) {
  return x.is_cpu() && x.scalar_type() == at::kFloat && w.value.scalar_type() == at::kBFloat16 &&
         !w.trained();
}

// With more rows the library makes up for turning the weight into its operands' type.
constexpr int64_t kFewRows = 32;

// Whether the fast form rounds x and the sums to bf16, as the weight is.
bool rounds_rows(const at::Tensor& x, const Weight& w) {
  return is_mixed(x, w) && x.size(0) > kFewRows && multiplies_bf16();
}

// The library's product in `type`, of which a piece of the weight at a time is made if it is of
// another one.
at::Tensor product_in_pieces(const at::Tensor& x, const Weight& w, const at::Tensor& bias,
                             at::ScalarType type) {
  constexpr int64_t kPieceElements = int64_t{1} << 18;  // they stay in a CPU's cache
  const int64_t outputs = w.value.size(0);
  const bool whole = !x.is_cpu() || w.value.scalar_type() == type;
  const int64_t step = whole ? outputs : std::max<int64_t>(1, kPieceElements / w.value.size(1));
  const at::Tensor rows = x.to(type);
  at::Tensor y = at::empty({x.size(0), outputs}, x.options());
  for (int64_t begin = 0; begin < outputs; begin += step) {
    const int64_t count = std::min(step, outputs - begin);
    const at::Tensor piece = w.value.narrow(0, begin, count).to(type);
    at::Tensor to = y.narrow(1, begin, count);
    if (type == x.scalar_type()) {
      at::mm_out(to, rows, piece.t());
    } else {
      to.copy_(at::linear(rows, piece));
    }
  }
  if (w.scale.defined()) y.mul_(w.scale);
  if (bias.defined()) y.add_(bias);
  return y;
}

bool is_fp8(const Weight& w) {
  return w.value.scalar_type() == at::kFloat8_e4m3fn;
}

void check_fp8(const at::Tensor& x, const Weight& w) {
  HALO_CHECK(w.value.is_contiguous() && !w.trained() && w.value.device() == x.device() &&
                 w.scale.defined() && w.scale.sizes() == at::IntArrayRef({w.value.size(0)}) &&
                 w.scale.scalar_type() == at::kFloat,
             "linear: a weight in fp8 must be contiguous, on the input's device, frozen, and have "
             "an fp32 scale a row");
  HALO_CHECK(
      x.is_cpu() || (x.scalar_type() == at::kBFloat16 && w.value.size(0) % 16 == 0 &&
                     w.value.size(1) % 16 == 0 && compute_capability(x) >= 9),
      "linear: products in fp8 on a GPU are of bf16 rows, of sizes that 16 divides ([{}, {}] "
      "here), and of Hopper or later",
      w.value.size(0), w.value.size(1));
}

// The library's product of rows in fp8, sums in fp32; on a CPU as it is written.
at::Tensor product_in_fp8(const at::Tensor& x, const Weight& w, const at::Tensor& bias) {
  const Weight rows = to_fp8(x);
  if (x.is_cuda()) {
    return at::_scaled_mm(rows.value, w.value.t(), rows.scale.unsqueeze(1), w.scale.unsqueeze(0),
                          if_defined(bias), {}, x.scalar_type(), /*use_fast_accum=*/true);
  }
  at::Tensor y = at::mm(rows.value.to(at::kFloat), w.value.to(at::kFloat).t());
  y.mul_(rows.scale.unsqueeze(1)).mul_(w.scale);
  if (bias.defined()) y.add_(bias);
  return y.to(x.scalar_type());
}

at::Tensor product(const at::Tensor& x, const Weight& w, const at::Tensor& bias, Kernels kernels) {
  if (is_fp8(w)) return product_in_fp8(x, w, bias);
  const bool reference = kernels == Kernels::kReference;
  if (!reference && x.scalar_type() == w.value.scalar_type())
    return at::linear(x, w.value, if_defined(bias));
  if (!reference && (x.is_cuda() || x.size(0) > kFewRows)) {
    return product_in_pieces(x, w, bias, rounds_rows(x, w) ? at::kBFloat16 : x.scalar_type());
  }
  const at::Tensor bias_f32 = bias.defined() ? bias.to(at::kFloat) : bias;
  return linear_reference(x.to(at::kFloat).contiguous(), w, bias_f32).to(x.scalar_type());
}

void check(const at::Tensor& x, const Weight& w, const Weight& bias, Kernels kernels) {
  HALO_CHECK(x.dim() == 2 && w.defined() && w.value.dim() == 2 && w.value.size(1) == x.size(1),
             "linear: x must be [N, I] and the weight [O, I]");
  if (is_fp8(w)) {
    check_fp8(x, w);
  } else {
    check_matrix("linear", w, is_mixed(x, w) ? w.value : x);
  }
  if (bias.defined()) check_weight("linear", bias, {w.value.size(0)}, x);
  HALO_CHECK(kernels == Kernels::kFast || x.is_cpu(), "linear: the reference form runs on the CPU");
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
    return product(x, {w, {}}, bias.value, kernels);
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
  check(x, w, bias, kernels);
  if (!records({x, w.value, bias.value})) return product(x, w, bias.value, kernels);
  HALO_CHECK(!w.scale.defined(), "linear: there is no gradient through a weight with scales");
  return LinearNode::apply(x, w.value, if_defined(bias.value), w, bias, kernels);
}

at::Tensor linear_to_fp32(const at::Tensor& x, const Weight& w, Kernels kernels) {
  check(x, w, {}, kernels);
  if (kernels == Kernels::kReference || !rounds_rows(x, w) || records({x})) {
    return linear(x, w, {}, kernels).to(at::kFloat);
  }
  return product_in_pieces(x, w, {}, at::kFloat);
}

Weight to_fp8(const at::Tensor& matrix) {
  constexpr double kLargest = 448;
  const at::Tensor largest = at::linalg_vector_norm(matrix, INFINITY, {1}, true, at::kFloat);
  // What is multiplied with is of the matrix's type, so its inverse is the scale: a row of bf16
  // goes through no fp32. Rounded up it takes a value to 450 at most, which is 448 in fp8.
  const at::Tensor inverse = (kLargest / largest.clamp_min_(1e-30)).to(matrix.scalar_type());
  return {(matrix * inverse).to(at::kFloat8_e4m3fn),
          {},
          inverse.to(at::kFloat).reciprocal_().squeeze(1)};
}

at::Tensor dense_matrix(const Weight& w, at::ScalarType type) {
  if (!w.scale.defined()) return w.value;
  return (w.value.to(at::kFloat) * w.scale.unsqueeze(1)).to(type);
}

}  // namespace halo
