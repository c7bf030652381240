// split_heads on the CPU: one pass over every token's row.
#include <algorithm>
#include <cstring>
#include <vector>

#include "ATen/ATen.h"
#include "ATen/Parallel.h"
#include "halo/kernels/cpu/row_chunks.h"
#include "halo/kernels/rope/rope_forms.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "halo/kernels/rope/rope_cpu.cc"
#include "hwy/foreach_target.h"
// After foreach_target.h: this is read once a target.
#include "halo/kernels/rms_norm/norm_rows-inl.h"

#ifndef HALO_KERNELS_ROPE_HEAD_ROW_
#define HALO_KERNELS_ROPE_HEAD_ROW_
namespace halo {

// What happens to the heads of one kind (q or k) of one token.
struct HeadRow {
  RowNorm norm;                                // norm.w null: no norm
  const float *cos = nullptr, *sin = nullptr;  // [d/2]; null: no rotation
  float scale = 1;
};

}  // namespace halo
#endif

HWY_BEFORE_NAMESPACE();
namespace halo {
namespace HWY_NAMESPACE {

// The pair (a, b) turned by the angle of this cosine and sine.
template <class V>
HWY_INLINE void turn(V cos, V sin, V& a, V& b) {
  const V turned = hn::NegMulAdd(b, sin, hn::Mul(a, cos));
  b = hn::MulAdd(a, sin, hn::Mul(b, cos));
  a = turned;
}

void head_row(const HeadRow& head, const float* x, float* y) {
  const RowNorm& norm = head.norm;
  const int64_t half = norm.columns / 2;
  const float rstd = norm.w ? reciprocal_rms(norm, x) : 1.0f;
  for_columns(half, [&](auto d, int64_t c) HWY_ATTR {
    auto a = hn::LoadU(d, x + c);
    auto b = hn::LoadU(d, x + half + c);
    if (norm.w) {
      a = hn::Mul(hn::Mul(a, hn::Set(d, rstd)), hn::LoadU(d, norm.w + c));
      b = hn::Mul(hn::Mul(b, hn::Set(d, rstd)), hn::LoadU(d, norm.w + half + c));
    }
    if (head.cos) turn(hn::LoadU(d, head.cos + c), hn::LoadU(d, head.sin + c), a, b);
    const auto scale = hn::Set(d, head.scale);
    hn::StoreU(hn::Mul(a, scale), d, y + c);
    hn::StoreU(hn::Mul(b, scale), d, y + half + c);
  });
}

void head_backward_row(const HeadRow& head, const float* x, const float* dy, float* dx, float* dw) {
  const RowNorm& norm = head.norm;
  const int64_t half = norm.columns / 2;
  for_columns(half, [&](auto d, int64_t c) HWY_ATTR {
    const auto scale = hn::Set(d, head.scale);
    auto a = hn::Mul(hn::LoadU(d, dy + c), scale);
    auto b = hn::Mul(hn::LoadU(d, dy + half + c), scale);
    if (head.cos) turn(hn::LoadU(d, head.cos + c), hn::Neg(hn::LoadU(d, head.sin + c)), a, b);
    hn::StoreU(a, d, dx + c);
    hn::StoreU(b, d, dx + half + c);
  });
  if (norm.w) norm_backward_row(norm, x, dx, nullptr, dx, dw);
}

}  // namespace HWY_NAMESPACE
}  // namespace halo
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace halo {

HWY_EXPORT(head_row);
HWY_EXPORT(head_backward_row);

namespace {

const float* data_or_null(const at::Tensor& x) {
  return x.defined() ? x.const_data_ptr<float>() : nullptr;
}

float* data_of(const at::Tensor& x) {
  return x.defined() ? x.mutable_data_ptr<float>() : nullptr;
}

// The factors of all tokens as pointers, and of one token as rows.
struct TokenFactors {
  TokenFactors(const HeadSplit& split, const HeadFactors& factors)
      : d(split.head_dim),
        q_norm{data_or_null(factors.q_norm), d, static_cast<float>(split.eps)},
        k_norm{data_or_null(factors.k_norm), d, static_cast<float>(split.eps)},
        cos(data_or_null(factors.cos)),
        sin(data_or_null(factors.sin)),
        q_scale(data_or_null(factors.q_scale)) {}

  HeadRow q(int64_t n) const { return row(q_norm, n, q_scale ? q_scale[n] : 1.0f); }
  HeadRow k(int64_t n) const { return row(k_norm, n, 1.0f); }

  HeadRow row(const RowNorm& norm, int64_t n, float scale) const {
    return {norm, cos ? cos + n * (d / 2) : nullptr, sin ? sin + n * (d / 2) : nullptr, scale};
  }

  int64_t d;
  RowNorm q_norm, k_norm;
  const float *cos, *sin, *q_scale;
};

void heads_backward(const HeadRow& row, int64_t heads, const float* x, const float* dy, float* dx,
                    float* dw) {
  const int64_t d = row.norm.columns;
  if (!dy) {
    std::memset(dx, 0, heads * d * sizeof(float));
    return;
  }
  for (int64_t h = 0; h < heads; ++h)
    HWY_DYNAMIC_DISPATCH(head_backward_row)(row, x + h * d, dy + h * d, dx + h * d, dw);
}

void copy_or_zero(const float* from, int64_t count, float* to) {
  if (from) {
    std::memcpy(to, from, count * sizeof(float));
  } else {
    std::memset(to, 0, count * sizeof(float));
  }
}

}  // namespace

Heads split_heads_cpu(const at::Tensor& stacked, const HeadSplit& split,
                      const HeadFactors& factors) {
  const int64_t rows = stacked.size(0), columns = stacked.size(1), d = split.head_dim;
  const int64_t q_size = split.heads * d, kv_size = split.kv_heads * d;
  Heads out;
  out.q = at::empty({rows, split.heads, d}, stacked.options());
  out.k = at::empty({rows, split.kv_heads, d}, stacked.options());
  out.v = at::empty_like(out.k);
  if (split.has_gate) out.gate = at::empty({rows, q_size}, stacked.options());
  const TokenFactors token(split, factors);
  const float* from = stacked.const_data_ptr<float>();
  float *q = data_of(out.q), *k = data_of(out.k), *v = data_of(out.v), *gate = data_of(out.gate);
  at::parallel_for(0, rows, row_grain(columns), [&](int64_t begin, int64_t end) {
    for (int64_t n = begin; n < end; ++n) {
      const float* x = from + n * columns;
      const HeadRow q_row = token.q(n), k_row = token.k(n);
      for (int64_t c = 0; c < q_size; c += d)
        HWY_DYNAMIC_DISPATCH(head_row)(q_row, x + c, q + n * q_size + c);
      for (int64_t c = 0; c < kv_size; c += d)
        HWY_DYNAMIC_DISPATCH(head_row)(k_row, x + q_size + c, k + n * kv_size + c);
      const float* rest = x + q_size + kv_size;
      copy_or_zero(rest, kv_size, v + n * kv_size);
      if (gate) copy_or_zero(rest + kv_size, q_size, gate + n * q_size);
    }
  });
  return out;
}

at::Tensor split_heads_cpu_backward(const Heads& grads, const at::Tensor& stacked,
                                    const HeadSplit& split, const HeadFactors& factors,
                                    const at::Tensor& q_norm_grad, const at::Tensor& k_norm_grad) {
  const int64_t columns = stacked.size(1), d = split.head_dim;
  const int64_t q_size = split.heads * d, kv_size = split.kv_heads * d;
  at::Tensor out = at::empty_like(stacked);
  const TokenFactors token(split, factors);
  const float* from = stacked.const_data_ptr<float>();
  float* to = out.mutable_data_ptr<float>();
  const float *dq = data_or_null(grads.q), *dk = data_or_null(grads.k);
  const float *dv = data_or_null(grads.v), *d_gate = data_or_null(grads.gate);
  const auto at_row = [](const float* x, int64_t place) { return x ? x + place : nullptr; };
  // The gradient of q_norm, then that of k_norm; first over the heads of a row, then over rows, so
  // that no sum is long.
  const auto add_rows = [&](int64_t begin, int64_t end, float* sums) {
    std::vector<float> of_row(2 * d);
    for (int64_t n = begin; n < end; ++n) {
      const float* x = from + n * columns;
      float* dx = to + n * columns;
      std::fill(of_row.begin(), of_row.end(), 0.0f);
      heads_backward(token.q(n), split.heads, x, at_row(dq, n * q_size), dx,
                     q_norm_grad.defined() ? of_row.data() : nullptr);
      heads_backward(token.k(n), split.kv_heads, x + q_size, at_row(dk, n * kv_size), dx + q_size,
                     k_norm_grad.defined() ? of_row.data() + d : nullptr);
      for (int64_t c = 0; c < 2 * d; ++c) sums[c] += of_row[c];
      float* rest = dx + q_size + kv_size;
      copy_or_zero(at_row(dv, n * kv_size), kv_size, rest);
      if (split.has_gate) copy_or_zero(at_row(d_gate, n * q_size), q_size, rest + kv_size);
    }
  };
  const at::Tensor norm_grads = sum_over_rows(stacked.size(0), 2 * d, add_rows);
  if (q_norm_grad.defined()) at::Tensor(q_norm_grad).add_(norm_grads.narrow(0, 0, d));
  if (k_norm_grad.defined()) at::Tensor(k_norm_grad).add_(norm_grads.narrow(0, d, d));
  return out;
}

}  // namespace halo
#endif
