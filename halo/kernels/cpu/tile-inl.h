// Products of small fp32 matrices that lie in the cache (Highway, read once a target). Rows are
// padded to a multiple of kPad floats, so that no product has a tail of columns.
#if defined(HALO_KERNELS_TILE_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef HALO_KERNELS_TILE_INL_H_
#undef HALO_KERNELS_TILE_INL_H_
#else
#define HALO_KERNELS_TILE_INL_H_
#endif

#include <algorithm>
#include <cstdint>
#include <cstring>

#include "halo/kernels/cpu/columns-inl.h"

HWY_BEFORE_NAMESPACE();
namespace halo {
namespace HWY_NAMESPACE {

inline constexpr int64_t kPad = 16;
// Rows that are worked through at once where a triangular matrix is cut into strips.
inline constexpr int64_t kStrip = 16;

HWY_INLINE int64_t padded(int64_t n) {
  return (n + kPad - 1) / kPad * kPad;
}

// c [m, n] = a b or c += a b, with a(i, p) = a[i * a_row + p * a_step], so that a may be a
// transpose, and k the length of the sums; n is a multiple of kPad.
struct TileProduct {
  const float* a;
  int64_t a_row, a_step;
  const float* b;
  int64_t b_row;
  float* c;
  int64_t c_row;
  int64_t m, n, k;
};

// Both loops over the sums must be unrolled for these to stay in registers.
template <bool kAdd, int kRows, int kVectors>
HWY_INLINE void product_block(const TileProduct& t, int64_t row, int64_t column) {
  const hn::CappedTag<float, kPad> d;
  using V = hn::Vec<decltype(d)>;
  const int64_t lanes = hn::Lanes(d);
  const float* a = t.a + row * t.a_row;
  const float* b = t.b + column;
  float* c = t.c + row * t.c_row + column;
  V sum[kRows * kVectors];
#pragma GCC unroll 32
  for (int s = 0; s < kRows * kVectors; ++s) {
    sum[s] = kAdd ? hn::LoadU(d, c + s / kVectors * t.c_row + s % kVectors * lanes) : hn::Zero(d);
  }
  for (int64_t p = 0; p < t.k; ++p, a += t.a_step, b += t.b_row) {
    V right[kVectors];
#pragma GCC unroll 8
    for (int v = 0; v < kVectors; ++v) right[v] = hn::LoadU(d, b + v * lanes);
#pragma GCC unroll 8
    for (int r = 0; r < kRows; ++r) {
      const V left = hn::Set(d, a[r * t.a_row]);
#pragma GCC unroll 8
      for (int v = 0; v < kVectors; ++v) {
        sum[r * kVectors + v] = hn::MulAdd(left, right[v], sum[r * kVectors + v]);
      }
    }
  }
#pragma GCC unroll 32
  for (int s = 0; s < kRows * kVectors; ++s) {
    hn::StoreU(sum[s], d, c + s / kVectors * t.c_row + s % kVectors * lanes);
  }
}

template <bool kAdd, int kVectors>
HWY_INLINE void product_columns(const TileProduct& t, int64_t column) {
  int64_t row = 0;
  for (; row + 6 <= t.m; row += 6) product_block<kAdd, 6, kVectors>(t, row, column);
  for (; row + 4 <= t.m; row += 4) product_block<kAdd, 4, kVectors>(t, row, column);
  for (; row < t.m; ++row) product_block<kAdd, 1, kVectors>(t, row, column);
}

template <bool kAdd>
HWY_NOINLINE void product(const TileProduct& t) {
#if HWY_ARCH_X86 && HWY_TARGET > HWY_AVX3
  constexpr int kWide = 2;  // 16 registers
#else
  constexpr int kWide = 4;
#endif
  const int64_t lanes = hn::Lanes(hn::CappedTag<float, kPad>());
  int64_t column = 0;
  for (; column + kWide * lanes <= t.n; column += kWide * lanes) {
    product_columns<kAdd, kWide>(t, column);
  }
  for (; column < t.n; column += lanes) product_columns<kAdd, 1>(t, column);
}

// to [., padded(columns)] = factor * rows of `from`, `stride` apart; padding, and rows up to
// padded(rows), become 0.
HWY_INLINE void pack(const float* from, int64_t stride, int64_t rows, int64_t columns, float factor,
                     float* to) {
  const int64_t width = padded(columns);
  for (int64_t i = 0; i < rows; ++i) {
    for_columns(columns, [&](auto d, int64_t c) HWY_ATTR {
      hn::StoreU(hn::Mul(hn::LoadU(d, from + i * stride + c), hn::Set(d, factor)), d,
                 to + i * width + c);
    });
    std::fill(to + i * width + columns, to + (i + 1) * width, 0.0f);
  }
  std::fill(to + rows * width, to + padded(rows) * width, 0.0f);
}

// The inverse, multiplied by `factor`.
HWY_INLINE void unpack(const float* from, int64_t rows, int64_t columns, float factor, float* to,
                       int64_t stride) {
  const int64_t width = padded(columns);
  for (int64_t i = 0; i < rows; ++i) {
    for_columns(columns, [&](auto d, int64_t c) HWY_ATTR {
      hn::StoreU(hn::Mul(hn::LoadU(d, from + i * width + c), hn::Set(d, factor)), d,
                 to + i * stride + c);
    });
  }
}

// to [columns, to_row] = the transpose of from [rows, columns]; both multiples of 4.
HWY_INLINE void transpose(const float* from, int64_t rows, int64_t columns, float* to,
                          int64_t to_row) {
#if HWY_TARGET == HWY_SCALAR
  for (int64_t i = 0; i < rows; ++i) {
    for (int64_t j = 0; j < columns; ++j) to[j * to_row + i] = from[i * columns + j];
  }
#else
  const hn::FixedTag<float, 4> d;
  for (int64_t i = 0; i < rows; i += 4) {
    for (int64_t j = 0; j < columns; j += 4) {
      const float* x = from + i * columns + j;
      const auto x0 = hn::LoadU(d, x), x1 = hn::LoadU(d, x + columns);
      const auto x2 = hn::LoadU(d, x + 2 * columns), x3 = hn::LoadU(d, x + 3 * columns);
      const auto low0 = hn::InterleaveLower(d, x0, x1), low1 = hn::InterleaveLower(d, x2, x3);
      const auto up0 = hn::InterleaveUpper(d, x0, x1), up1 = hn::InterleaveUpper(d, x2, x3);
      float* y = to + j * to_row + i;
      hn::StoreU(hn::ConcatLowerLower(d, low1, low0), d, y);
      hn::StoreU(hn::ConcatUpperUpper(d, low1, low0), d, y + to_row);
      hn::StoreU(hn::ConcatLowerLower(d, up1, up0), d, y + 2 * to_row);
      hn::StoreU(hn::ConcatUpperUpper(d, up1, up0), d, y + 3 * to_row);
    }
  }
#endif
}

HWY_INLINE void scale(float* x, int64_t count, float factor) {
  for_columns(count, [&](auto d, int64_t c) HWY_ATTR {
    hn::StoreU(hn::Mul(hn::LoadU(d, x + c), hn::Set(d, factor)), d, x + c);
  });
}

}  // namespace HWY_NAMESPACE
}  // namespace halo
HWY_AFTER_NAMESPACE();

#endif  // HALO_KERNELS_TILE_INL_H_
