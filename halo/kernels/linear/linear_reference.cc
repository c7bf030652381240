// The fixed-order form of linear: every output element is one dot product whose order of summation
// depends on I alone. Blocks of rows and outputs only share loads.
#include "ATen/ATen.h"
#include "ATen/Parallel.h"
#include "halo/kernels/cpu/row_chunks.h"
#include "halo/kernels/linear/linear_forms.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "halo/kernels/linear/linear_reference.cc"
#include "hwy/foreach_target.h"
// Once for all targets.
#include "hwy/cache_control.h"
// After foreach_target.h: this is read once a target.
#include "halo/kernels/cpu/load-inl.h"

#ifndef HALO_KERNELS_LINEAR_TILE_
#define HALO_KERNELS_LINEAR_TILE_
namespace halo {

// Rows [row, row_end) of x [., inputs] times rows [out, out_end) of w [., inputs] -> y [.,
// outputs].
template <class W>  // float, hwy::bfloat16_t or int8_t
struct LinearTile {
  const float* x;
  const W* w;
  const float *scale, *bias;  // [outputs]; may be null
  float* y;
  int64_t inputs, outputs;
  int64_t row, row_end, out, out_end;
};

}  // namespace halo
#endif

HWY_BEFORE_NAMESPACE();
namespace halo {
namespace HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

// kRows x kOuts dot products side by side; the loops over them must be unrolled for the sums to
// stay in registers. Few rows are bound by reading the weights, so the lines of the outputs to come
// are asked for one after the other.
template <int kRows, int kOuts, class W>
HWY_INLINE void dot_block(const LinearTile<W>& t, int64_t row, int64_t out) {
  const hn::ScalableTag<float> d;
  const hn::CappedTag<float, 1> one;
  using V = hn::Vec<decltype(d)>;
  constexpr int kSums = kRows * kOuts;
  const int64_t lanes = hn::Lanes(d);
  const float* x = t.x + row * t.inputs;
  const W* w = t.w + out * t.inputs;
  V sum[kSums];
#pragma GCC unroll 16
  for (int s = 0; s < kSums; ++s) sum[s] = hn::Zero(d);
  constexpr int64_t kAhead = 9216, kLine = 64;  // bytes
  constexpr auto kColumn = static_cast<int64_t>(kOuts * sizeof(W));
  const char* ahead = reinterpret_cast<const char*>(w) + kAhead;
  int64_t i = 0;
  for (; i + lanes <= t.inputs; i += lanes) {
    if (i * kColumn % kLine == 0) {
      for (int64_t b = 0; b < lanes * kColumn; b += kLine) hwy::Prefetch(ahead + i * kColumn + b);
    }
    V xs[kRows], ws[kOuts];
#pragma GCC unroll 16
    for (int r = 0; r < kRows; ++r) xs[r] = hn::LoadU(d, x + r * t.inputs + i);
#pragma GCC unroll 16
    for (int o = 0; o < kOuts; ++o) ws[o] = load(d, w + o * t.inputs + i);
#pragma GCC unroll 16
    for (int s = 0; s < kSums; ++s) sum[s] = hn::MulAdd(xs[s / kOuts], ws[s % kOuts], sum[s]);
  }
#pragma GCC unroll 16
  for (int s = 0; s < kSums; ++s) {
    const int r = s / kOuts, o = s % kOuts;
    auto tail = hn::Zero(one);
    for (int64_t j = i; j < t.inputs; ++j)
      tail = hn::MulAdd(hn::Set(one, x[r * t.inputs + j]), load(one, w + o * t.inputs + j), tail);
    float total = hn::GetLane(hn::SumOfLanes(d, sum[s])) + hn::GetLane(tail);
    if (t.scale) total *= t.scale[out + o];
    t.y[(row + r) * t.outputs + out + o] = t.bias ? total + t.bias[out + o] : total;
  }
}

template <int kRows, class W>
HWY_INLINE void dot_rows(const LinearTile<W>& t, int64_t row) {
  // Rows share what is loaded of four outputs. For one row alone weights in bf16 come fastest as
  // one stream, an output after the other, where a vector is so wide that one sum keeps up with
  // them; int8 is as fast as it is made fp32, four side by side.
  constexpr bool kOneStream =
      kRows == 1 && std::is_same_v<W, hwy::bfloat16_t> && HWY_MAX_BYTES >= 64;
  constexpr int kOuts = kOneStream ? 1 : 4;
  int64_t out = t.out;
  for (; out + kOuts <= t.out_end; out += kOuts) dot_block<kRows, kOuts>(t, row, out);
  for (; out < t.out_end; ++out) dot_block<kRows, 1>(t, row, out);
}

template <class W>
HWY_INLINE void all_rows(const LinearTile<W>& t) {
#if HWY_ARCH_X86 && HWY_TARGET > HWY_AVX3
  constexpr int kMany = 2;  // 16 registers
#else
  constexpr int kMany = 4;
#endif
  int64_t row = t.row;
  for (; row + kMany <= t.row_end; row += kMany) dot_rows<kMany>(t, row);
  for (; row < t.row_end; ++row) dot_rows<1>(t, row);
}

void linear_tile(const LinearTile<float>& t) {
  all_rows(t);
}
void linear_tile_bf16(const LinearTile<hwy::bfloat16_t>& t) {
  all_rows(t);
}
void linear_tile_int8(const LinearTile<int8_t>& t) {
  all_rows(t);
}

}  // namespace HWY_NAMESPACE
}  // namespace halo
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace halo {

namespace {

HWY_EXPORT(linear_tile);
HWY_EXPORT(linear_tile_bf16);
HWY_EXPORT(linear_tile_int8);

void run_tile(const LinearTile<float>& t) {
  HWY_DYNAMIC_DISPATCH(linear_tile)(t);
}
void run_tile(const LinearTile<hwy::bfloat16_t>& t) {
  HWY_DYNAMIC_DISPATCH(linear_tile_bf16)(t);
}
void run_tile(const LinearTile<int8_t>& t) {
  HWY_DYNAMIC_DISPATCH(linear_tile_int8)(t);
}

const float* data_of(const at::Tensor& x) {
  return x.defined() ? x.const_data_ptr<float>() : nullptr;
}

template <class W>
at::Tensor product(const at::Tensor& x, const Weight& w, const at::Tensor& bias) {
  constexpr int64_t kTile = 32;  // rows and outputs whose inputs stay in the cache
  const int64_t rows = x.size(0), outputs = w.value.size(0);
  at::Tensor y = at::empty({rows, outputs}, x.options());
  const int64_t row_tiles = (rows + kTile - 1) / kTile;
  const int64_t out_tiles = (outputs + kTile - 1) / kTile;
  const LinearTile<W> all{x.const_data_ptr<float>(),
                          static_cast<const W*>(w.value.const_data_ptr()),
                          data_of(w.scale),
                          data_of(bias),
                          y.mutable_data_ptr<float>(),
                          x.size(1),
                          outputs};
  const int64_t tiles = row_tiles * out_tiles;
  const int64_t bytes = w.value.numel() * static_cast<int64_t>(sizeof(W));
  at::parallel_for(0, tiles, task_grain(tiles, bytes, rows), [&](int64_t begin, int64_t end) {
    for (int64_t tile = begin; tile < end; ++tile) {
      LinearTile<W> part = all;
      part.row = tile % row_tiles * kTile;
      part.row_end = std::min(part.row + kTile, rows);
      part.out = tile / row_tiles * kTile;
      part.out_end = std::min(part.out + kTile, outputs);
      run_tile(part);
    }
  });
  return y;
}

}  // namespace

at::Tensor linear_reference(const at::Tensor& x, const Weight& w, const at::Tensor& bias) {
  if (w.scale.defined()) return product<int8_t>(x, w, bias);
  return w.value.scalar_type() == at::kBFloat16 ? product<hwy::bfloat16_t>(x, w, bias)
                                                : product<float>(x, w, bias);
}

}  // namespace halo
#endif
