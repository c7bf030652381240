// split_heads composed of LibTorch operations, for any type and device. Rotation and scaling are
// computed in fp32 and rounded once.
#include "ATen/ATen.h"
#include "halo/kernels/rms_norm/rms_norm_forms.h"
#include "halo/kernels/rope/rope_forms.h"

namespace halo {
namespace {

// x [N, heads, d] fp32; sign +1 rotates, -1 is the transpose (the gradient).
at::Tensor rotate(const at::Tensor& x, const at::Tensor& cos, const at::Tensor& sin, double sign) {
  const auto halves = x.chunk(2, -1);
  const at::Tensor c = cos.unsqueeze(1);
  const at::Tensor s = (sin * sign).unsqueeze(1);
  return at::cat({halves[0] * c - halves[1] * s, halves[1] * c + halves[0] * s}, -1);
}

// Columns of one kind of head, as [N, heads, d].
at::Tensor heads_of(const at::Tensor& stacked, int64_t first_column, int64_t heads, int64_t d) {
  return stacked.narrow(1, first_column, heads * d).view({stacked.size(0), heads, d});
}

at::Tensor head_forward(const at::Tensor& x, const at::Tensor& norm, double eps,
                        const HeadFactors& factors, const at::Tensor& scale) {
  at::Tensor y = norm.defined() ? norm_forward(x, norm, eps) : x;
  if (factors.cos.defined()) y = rotate(y.to(at::kFloat), factors.cos, factors.sin, 1);
  if (scale.defined()) y = y.to(at::kFloat) * scale.view({-1, 1, 1});
  return y.to(x.scalar_type()).contiguous();
}

void head_backward(at::Tensor dx, at::Tensor dy, const at::Tensor& x, const at::Tensor& norm,
                   double eps, const HeadFactors& factors, const at::Tensor& scale,
                   const at::Tensor& norm_grad) {
  if (!dy.defined()) {
    dx.zero_();
    return;
  }
  if (scale.defined()) dy = dy.to(at::kFloat) * scale.view({-1, 1, 1});
  if (factors.cos.defined()) dy = rotate(dy.to(at::kFloat), factors.cos, factors.sin, -1);
  dx.copy_(norm.defined() ? norm_backward(dy, x, norm, eps, norm_grad) : dy);
}

}  // namespace

Heads split_heads_aten(const at::Tensor& stacked, const HeadSplit& split,
                       const HeadFactors& factors) {
  const auto [heads, kv_heads, d, has_gate, eps] = split;
  const int64_t k_column = heads * d;
  const int64_t v_column = k_column + kv_heads * d;
  Heads out;
  out.q =
      head_forward(heads_of(stacked, 0, heads, d), factors.q_norm, eps, factors, factors.q_scale);
  out.k = head_forward(heads_of(stacked, k_column, kv_heads, d), factors.k_norm, eps, factors, {});
  out.v = heads_of(stacked, v_column, kv_heads, d).contiguous();
  if (has_gate) out.gate = stacked.narrow(1, v_column + kv_heads * d, heads * d).contiguous();
  return out;
}

at::Tensor split_heads_aten_backward(const Heads& grads, const at::Tensor& stacked,
                                     const HeadSplit& split, const HeadFactors& factors,
                                     const at::Tensor& q_norm_grad, const at::Tensor& k_norm_grad) {
  const auto [heads, kv_heads, d, has_gate, eps] = split;
  const int64_t k_column = heads * d;
  const int64_t v_column = k_column + kv_heads * d;
  at::Tensor out = at::empty_like(stacked);
  const auto copy_or_zero = [](at::Tensor to, const at::Tensor& from) {
    from.defined() ? to.copy_(from) : to.zero_();
  };
  head_backward(heads_of(out, 0, heads, d), grads.q, heads_of(stacked, 0, heads, d), factors.q_norm,
                eps, factors, factors.q_scale, q_norm_grad);
  head_backward(heads_of(out, k_column, kv_heads, d), grads.k,
                heads_of(stacked, k_column, kv_heads, d), factors.k_norm, eps, factors, {},
                k_norm_grad);
  copy_or_zero(heads_of(out, v_column, kv_heads, d), grads.v);
  if (has_gate) copy_or_zero(out.narrow(1, v_column + kv_heads * d, heads * d), grads.gate);
  return out;
}

}  // namespace halo
