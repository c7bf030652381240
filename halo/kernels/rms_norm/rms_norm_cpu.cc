// RMSNorm and the residual step on the CPU: every row is read once from memory.
#include "ATen/ATen.h"
#include "ATen/Parallel.h"
#include "halo/kernels/cpu/row_chunks.h"
#include "halo/kernels/rms_norm/rms_norm_forms.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "halo/kernels/rms_norm/rms_norm_cpu.cc"
#include "hwy/foreach_target.h"
// After foreach_target.h: this is read once a target.
#include "halo/kernels/rms_norm/norm_rows-inl.h"

HWY_BEFORE_NAMESPACE();
namespace halo {
namespace HWY_NAMESPACE {

void rms_norm_row(const RowNorm& norm, const float* x, float* y) {
  const float rstd = reciprocal_rms(norm, x);
  for_columns(norm.columns, [&](auto d, int64_t c) HWY_ATTR {
    const auto xhat = hn::Mul(hn::LoadU(d, x + c), hn::Set(d, rstd));
    hn::StoreU(hn::Mul(xhat, hn::LoadU(d, norm.w + c)), d, y + c);
  });
}

void add_rms_norm_row(const RowNorm& norm, const float* residual, const float* delta, float* sum,
                      float* y) {
  for_columns(norm.columns, [&](auto d, int64_t c) HWY_ATTR {
    hn::StoreU(hn::Add(hn::LoadU(d, residual + c), hn::LoadU(d, delta + c)), d, sum + c);
  });
  rms_norm_row(norm, sum, y);
}

void rms_norm_backward_row(const RowNorm& norm, const float* x, const float* dy,
                           const float* direct, float* dx, float* dw) {
  norm_backward_row(norm, x, dy, direct, dx, dw);
}

}  // namespace HWY_NAMESPACE
}  // namespace halo
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace halo {

HWY_EXPORT(rms_norm_row);
HWY_EXPORT(add_rms_norm_row);
HWY_EXPORT(rms_norm_backward_row);

at::Tensor norm_forward_cpu(const at::Tensor& x, const at::Tensor& w, double eps) {
  const RowNorm norm{w.const_data_ptr<float>(), x.size(1), static_cast<float>(eps)};
  const int64_t columns = norm.columns;
  at::Tensor out = at::empty_like(x);
  const float* from = x.const_data_ptr<float>();
  float* y = out.mutable_data_ptr<float>();
  at::parallel_for(0, x.size(0), row_grain(columns), [&](int64_t begin, int64_t end) {
    for (int64_t n = begin; n < end; ++n)
      HWY_DYNAMIC_DISPATCH(rms_norm_row)(norm, from + n * columns, y + n * columns);
  });
  return out;
}

std::pair<at::Tensor, at::Tensor> add_norm_forward_cpu(const at::Tensor& residual,
                                                       const at::Tensor& delta, const at::Tensor& w,
                                                       double eps) {
  const RowNorm norm{w.const_data_ptr<float>(), residual.size(1), static_cast<float>(eps)};
  const int64_t columns = norm.columns;
  at::Tensor sum = at::empty_like(residual);
  at::Tensor normed = at::empty_like(residual);
  const float* a = residual.const_data_ptr<float>();
  const float* b = delta.const_data_ptr<float>();
  float* s = sum.mutable_data_ptr<float>();
  float* y = normed.mutable_data_ptr<float>();
  at::parallel_for(0, residual.size(0), row_grain(columns), [&](int64_t begin, int64_t end) {
    for (int64_t at = begin * columns; at < end * columns; at += columns)
      HWY_DYNAMIC_DISPATCH(add_rms_norm_row)(norm, a + at, b + at, s + at, y + at);
  });
  return {sum, normed};
}

at::Tensor norm_backward_cpu(const at::Tensor& dy, const at::Tensor& x, const at::Tensor& w,
                             double eps, const at::Tensor& w_grad, const at::Tensor& direct) {
  const RowNorm norm{w.const_data_ptr<float>(), x.size(1), static_cast<float>(eps)};
  const int64_t columns = norm.columns;
  at::Tensor dx = at::empty_like(x);
  const float* from = x.const_data_ptr<float>();
  const float* grad = dy.const_data_ptr<float>();
  const float* past = direct.defined() ? direct.const_data_ptr<float>() : nullptr;
  float* to = dx.mutable_data_ptr<float>();
  const bool trained = w_grad.defined();
  const at::Tensor dw =
      sum_over_rows(x.size(0), trained ? columns : 0, [&](int64_t begin, int64_t end, float* sums) {
        for (int64_t at = begin * columns; at < end * columns; at += columns)
          HWY_DYNAMIC_DISPATCH(rms_norm_backward_row)
        (norm, from + at, grad + at, past ? past + at : nullptr, to + at, trained ? sums : nullptr);
      });
  if (trained) at::Tensor(w_grad).add_(dw);
  return dx;
}

}  // namespace halo
#endif
