// RMSNorm composed of LibTorch operations.
#include "ATen/ATen.h"
#include "halo/kernels/rms_norm/rms_norm_forms.h"

namespace halo {
namespace {

struct Normalized {
  at::Tensor xhat;  // x's shape and type
  at::Tensor rstd;  // [..., 1] fp32
};

Normalized normalize(const at::Tensor& x, double eps) {
  if (x.is_cuda()) {
    const auto [xhat, rstd] = at::_fused_rms_norm(x, {x.size(-1)}, std::nullopt, eps);
    return {xhat, rstd};
  }
  const at::Tensor x_f32 = x.to(at::kFloat);
  const at::Tensor rstd = x_f32.square().mean(-1, /*keepdim=*/true).add_(eps).rsqrt_();
  return {(x_f32 * rstd).to(x.scalar_type()), rstd};
}

}  // namespace

at::Tensor norm_forward(const at::Tensor& x, const at::Tensor& w, double eps) {
  return normalize(x, eps).xhat.mul_(w);
}

at::Tensor norm_backward(const at::Tensor& dy, const at::Tensor& x, const at::Tensor& w, double eps,
                         const at::Tensor& w_grad) {
  const auto [xhat, rstd] = normalize(x, eps);
  if (w_grad.defined()) {
    const at::Tensor products = (dy * xhat).reshape({-1, w.numel()});
    at::Tensor(w_grad).add_(products.sum(0, /*keepdim=*/false, at::kFloat));
  }
  if (x.is_cuda()) {
    return std::get<0>(at::_fused_rms_norm_backward(dy.to(x.scalar_type()), x, {x.size(-1)}, rstd,
                                                    w, {true, false}));
  }
  const at::Tensor unit = x.to(at::kFloat) * rstd;
  const at::Tensor weighted = dy.to(at::kFloat) * w.to(at::kFloat);
  return (weighted - unit * (weighted * unit).mean(-1, /*keepdim=*/true))
      .mul_(rstd)
      .to(x.scalar_type());
}

}  // namespace halo
