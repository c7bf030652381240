// Norm and sigmoid gate on the CPU: every row is read once from memory.
#include "ATen/ATen.h"
#include "ATen/Parallel.h"
#include "halo/kernels/cpu/row_chunks.h"
#include "halo/kernels/gate/gate_forms.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "halo/kernels/gate/gate_cpu.cc"
#include "hwy/foreach_target.h"
// After foreach_target.h: this is read once a target.
#include "halo/kernels/rms_norm/norm_rows-inl.h"

#ifndef HALO_KERNELS_GATE_ROW_
#define HALO_KERNELS_GATE_ROW_
namespace halo {

struct GateRow {
  const float *o, *gate;
  const float* dy = nullptr;                // backward alone
  float *d_o = nullptr, *d_gate = nullptr;  // backward alone
  float* d_norm = nullptr;                  // null: not wanted
};

}  // namespace halo
#endif

HWY_BEFORE_NAMESPACE();
namespace halo {
namespace HWY_NAMESPACE {

// The normed value of column c; norm.w may be null.
template <class D>
HWY_INLINE hn::Vec<D> normed(D d, const RowNorm& norm, const float* o, float rstd, int64_t c) {
  const auto x = hn::LoadU(d, o + c);
  return norm.w ? hn::Mul(hn::Mul(x, hn::Set(d, rstd)), hn::LoadU(d, norm.w + c)) : x;
}

void gate_row(const RowNorm& norm, const GateRow& row, float* y) {
  const float rstd = norm.w ? reciprocal_rms(norm, row.o) : 1.0f;
  for_columns(norm.columns, [&](auto d, int64_t c) HWY_ATTR {
    const auto open = sigmoid(d, hn::LoadU(d, row.gate + c));
    hn::StoreU(hn::Mul(normed(d, norm, row.o, rstd, c), open), d, y + c);
  });
}

void gate_backward_row(const RowNorm& norm, const GateRow& row) {
  const float rstd = norm.w ? reciprocal_rms(norm, row.o) : 1.0f;
  for_columns(norm.columns, [&](auto d, int64_t c) HWY_ATTR {
    const auto open = sigmoid(d, hn::LoadU(d, row.gate + c));
    const auto passed = hn::Mul(hn::LoadU(d, row.dy + c), open);
    hn::StoreU(passed, d, row.d_o + c);
    const auto slope = hn::Mul(passed, hn::Sub(hn::Set(d, 1.0f), open));
    hn::StoreU(hn::Mul(slope, normed(d, norm, row.o, rstd, c)), d, row.d_gate + c);
  });
  if (norm.w) norm_backward_row(norm, row.o, row.d_o, nullptr, row.d_o, row.d_norm);
}

}  // namespace HWY_NAMESPACE
}  // namespace halo
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace halo {

HWY_EXPORT(gate_row);
HWY_EXPORT(gate_backward_row);

namespace {

RowNorm row_norm(const at::Tensor& o, const at::Tensor& norm, double eps) {
  return {norm.defined() ? norm.const_data_ptr<float>() : nullptr, o.size(1),
          static_cast<float>(eps)};
}

}  // namespace

at::Tensor norm_gate_forward_cpu(const at::Tensor& o, const at::Tensor& norm, double eps,
                                 const at::Tensor& gate) {
  const RowNorm row = row_norm(o, norm, eps);
  at::Tensor out = at::empty_like(o);
  const float* from = o.const_data_ptr<float>();
  const float* open = gate.const_data_ptr<float>();
  float* y = out.mutable_data_ptr<float>();
  at::parallel_for(0, o.size(0), row_grain(row.columns), [&](int64_t begin, int64_t end) {
    for (int64_t at = begin * row.columns; at < end * row.columns; at += row.columns)
      HWY_DYNAMIC_DISPATCH(gate_row)(row, {from + at, open + at}, y + at);
  });
  return out;
}

NormGateGradients norm_gate_backward_cpu(const at::Tensor& dy, const at::Tensor& o,
                                         const at::Tensor& norm, double eps, const at::Tensor& gate,
                                         const at::Tensor& norm_grad) {
  const RowNorm row = row_norm(o, norm, eps);
  const bool trained = norm_grad.defined();
  NormGateGradients out{at::empty_like(o), at::empty_like(o)};
  const GateRow first{o.const_data_ptr<float>(), gate.const_data_ptr<float>(),
                      dy.const_data_ptr<float>(), out.o.mutable_data_ptr<float>(),
                      out.gate.mutable_data_ptr<float>()};
  const at::Tensor d_norm = sum_over_rows(
      o.size(0), trained ? row.columns : 0, [&](int64_t begin, int64_t end, float* sums) {
        for (int64_t at = begin * row.columns; at < end * row.columns; at += row.columns)
          HWY_DYNAMIC_DISPATCH(gate_backward_row)
        (row, {first.o + at, first.gate + at, first.dy + at, first.d_o + at, first.d_gate + at,
               trained ? sums : nullptr});
      });
  if (trained) at::Tensor(norm_grad).add_(d_norm);
  return out;
}

}  // namespace halo
#endif
