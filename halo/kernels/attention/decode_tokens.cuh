// What a warp of decode_attention does with 16 tokens: loads them, multiplies queries with keys,
// and weights with values. Device code.
#pragma once

#include "halo/kernels/cuda/elements.cuh"
#include "halo/kernels/cuda/mma.cuh"
#include "halo/kernels/cuda/overlap.cuh"
#include "halo/kernels/cuda/rows.cuh"

namespace halo::decode {

using Bf16 = __nv_bfloat16;

constexpr int kGroup = 16;  // tokens a warp takes at a time

// What a lane holds of 16 tokens: keys of tokens g and g + 8, values of 2t, 2t+1, 2t+8, 2t+9, of
// int8 the scales of the latter in both. A token's numbers lie in pieces of 16 bytes, of which its
// lanes take turns; 64 values in int8 are 8 bytes a lane.
template <int D, class T>
struct Keys {
  uint4 of[2][D / 32];
};
template <int D>
struct Keys<D, int8_t> {
  uint4 of[2][D / 64];
  float scales[4];
};
template <int D, class T>
struct Values {
  uint4 of[4][D / 64];
};
template <int D>
struct Values<D, int8_t> {
  uint32_t of[4][D / 32];
  float scales[4];
};

// Running softmax of the warp's tokens. A lane: maximum and (its part of the) sum of row g; of o^T
// the elements i and i + D/16 of its list (element_of) for rows 2t, 2t+1.
template <int D>
struct Sums {
  float o[D / 16][4];
  float most, sum;
};

// The place in a head of element e of a lane's D/8, which lie in pieces of 8, int8 in one.
template <int D, class T>
__device__ __forceinline__ int element_of(int e, int g) {
  return sizeof(T) == 1 ? g * (D / 8) + e : e / 8 * 64 + g * 8 + e % 8;
}

// Two bf16 of row a and row b that stand in the same half of the words.
__device__ __forceinline__ uint32_t pair(uint32_t a, uint32_t b, int half) {
  return __byte_perm(a, b, half ? 0x7632 : 0x5410);
}

__device__ __forceinline__ uint32_t word(const uint4& x, int i) {
  return i == 0 ? x.x : i == 1 ? x.y : i == 2 ? x.z : x.w;
}

// The scales of tokens 2t, 2t+1, 2t+8, 2t+9; 0 of what is not stored.
__device__ __forceinline__ void load_scales(const float* from, int last, float (&to)[4]) {
  const int t = threadIdx.x % 4;
#pragma unroll
  for (int i = 0; i < 2; ++i) {
    const uint2 pair = cuda::load_once_8(from + 8 * i + 2 * t);
    to[2 * i] = 8 * i + 2 * t <= last ? __uint_as_float(pair.x) : 0;
    to[2 * i + 1] = 8 * i + 2 * t + 1 <= last ? __uint_as_float(pair.y) : 0;
  }
}

// From the first of 16 tokens on.
template <int D, class T>
__device__ __forceinline__ void load_keys(const T* from, int stride, int last, Keys<D, T>& to) {
  constexpr int kPiece = 16 / sizeof(T);
  const int g = threadIdx.x % 32 / 4, t = threadIdx.x % 4;
#pragma unroll
  for (int tile = 0; tile < 2; ++tile) {
    const T* row = from + min(tile * 8 + g, last) * stride + t * kPiece;
#pragma unroll
    for (int j = 0; j < D / (4 * kPiece); ++j)
      to.of[tile][j] = cuda::load_once(row + 4 * kPiece * j);
  }
}

template <int D>
__device__ __forceinline__ void load_values(const int8_t* from, int stride, int last,
                                            Values<D, int8_t>& to) {
  const int g = threadIdx.x % 32 / 4, t = threadIdx.x % 4;
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    const int8_t* row = from + min(i / 2 * 8 + 2 * t + i % 2, last) * stride + g * (D / 8);
    if constexpr (D == 128) {
      const uint4 piece = cuda::load_once(row);
      to.of[i][0] = piece.x;
      to.of[i][1] = piece.y;
      to.of[i][2] = piece.z;
      to.of[i][3] = piece.w;
    } else {
      const uint2 piece = cuda::load_once_8(row);
      to.of[i][0] = piece.x;
      to.of[i][1] = piece.y;
    }
  }
}

template <int D>
__device__ __forceinline__ void load_values(const Bf16* from, int stride, int last,
                                            Values<D, Bf16>& to) {
  const int g = threadIdx.x % 32 / 4, t = threadIdx.x % 4;
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    const Bf16* row = from + min(i / 2 * 8 + 2 * t + i % 2, last) * stride + g * 8;
#pragma unroll
    for (int j = 0; j < D / 64; ++j) to.of[i][j] = cuda::load_once(row + 64 * j);
  }
}

// scores of row g: [0], [1] of tokens 2t, 2t+1, [2], [3] of tokens 2t+8, 2t+9.
template <int D>
__device__ __forceinline__ void multiply_keys(const uint4 (&q)[D / 32], const Keys<D, int8_t>& k,
                                              float (&scores)[4]) {
#pragma unroll
  for (int tile = 0; tile < 2; ++tile) {
    float s[4] = {};
#pragma unroll
    for (int j = 0; j < D / 64; ++j) {
      const uint4 key = k.of[tile][j];
#pragma unroll
      for (int half = 0; half < 2; ++half) {  // 8 numbers each
        const uint4 query = q[2 * j + half];
        const uint2 low = cuda::widen_int8(half ? key.z : key.x);
        const uint2 high = cuda::widen_int8(half ? key.w : key.y);
        const uint32_t first[4] = {query.x, 0, query.y, 0}, second[4] = {query.z, 0, query.w, 0};
        cuda::multiply(s, first, low.x, low.y);
        cuda::multiply(s, second, high.x, high.y);
      }
    }
    scores[2 * tile] = s[0] * k.scales[2 * tile];
    scores[2 * tile + 1] = s[1] * k.scales[2 * tile + 1];
  }
}

template <int D>
__device__ __forceinline__ void multiply_keys(const uint4 (&q)[D / 32], const Keys<D, Bf16>& k,
                                              float (&scores)[4]) {
#pragma unroll
  for (int tile = 0; tile < 2; ++tile) {
    float s[4] = {};
#pragma unroll
    for (int j = 0; j < D / 32; ++j) {
      const uint4 key = k.of[tile][j];
      const uint32_t first[4] = {q[j].x, 0, q[j].y, 0}, second[4] = {q[j].z, 0, q[j].w, 0};
      cuda::multiply(s, first, key.x, key.y);
      cuda::multiply(s, second, key.z, key.w);
    }
    scores[2 * tile] = s[0];
    scores[2 * tile + 1] = s[1];
  }
}

// The scores' weights, those of int8 times their values' scales, and the sums so far brought to the
// new maximum.
template <int D, class T>
__device__ __forceinline__ void weigh(float (&scores)[4], const Values<D, T>& v, Sums<D>& sums,
                                      uint32_t (&weights)[2]) {
  float most[1] = {fmaxf(fmaxf(scores[0], scores[1]), fmaxf(scores[2], scores[3]))};
  cuda::fold_lanes<cuda::Max>(most, 4);
  most[0] = fmaxf(most[0], sums.most);
  // Where a row has seen no token yet, every weight is exp2(-inf).
  const float shift = most[0] == -INFINITY ? 0 : most[0];
  const float kept = exp2f(sums.most - shift);
  if (__any_sync(~0u, most[0] != sums.most)) {
    const int t = threadIdx.x % 4;
    const float low = __shfl_sync(~0u, kept, 8 * t), high = __shfl_sync(~0u, kept, 8 * t + 4);
#pragma unroll
    for (int i = 0; i < D / 16; ++i) {
      sums.o[i][0] *= low;
      sums.o[i][1] *= high;
      sums.o[i][2] *= low;
      sums.o[i][3] *= high;
    }
  }
  sums.sum *= kept;
  sums.most = most[0];
#pragma unroll
  for (float& score : scores) {
    score = exp2f(score - shift);
    sums.sum += score;
  }
  if constexpr (sizeof(T) == 1) {
#pragma unroll
    for (int i = 0; i < 4; ++i) scores[i] *= v.scales[i];
  }
#pragma unroll
  for (int i = 0; i < 2; ++i) {
    const __nv_bfloat162 both = __floats2bfloat162_rn(scores[2 * i], scores[2 * i + 1]);
    weights[i] = *reinterpret_cast<const uint32_t*>(&both);
  }
}

// Of int8 the bytes of a pair of tokens are interleaved before they become bf16.
template <int D>
__device__ __forceinline__ void multiply_values(const Values<D, int8_t>& v,
                                                const uint32_t (&weights)[2], Sums<D>& sums) {
#pragma unroll
  for (int w = 0; w < D / 64; ++w) {
    uint32_t a[4][4];  // of elements 4w ..
#pragma unroll
    for (int r = 0; r < 4; ++r) {
      const int at = w + r % 2 * (D / 64), pairs = r / 2 * 2;
      const uint32_t even = v.of[pairs][at], odd = v.of[pairs + 1][at];
      const uint2 low = cuda::widen_int8(__byte_perm(even, odd, 0x5140));
      const uint2 high = cuda::widen_int8(__byte_perm(even, odd, 0x7362));
      a[0][r] = low.x;
      a[1][r] = low.y;
      a[2][r] = high.x;
      a[3][r] = high.y;
    }
#pragma unroll
    for (int e = 0; e < 4; ++e) cuda::multiply(sums.o[4 * w + e], a[e], weights[0], weights[1]);
  }
}

template <int D>
__device__ __forceinline__ void multiply_values(const Values<D, Bf16>& v,
                                                const uint32_t (&weights)[2], Sums<D>& sums) {
#pragma unroll
  for (int i = 0; i < D / 16; ++i) {
    uint32_t a[4];
#pragma unroll
    for (int r = 0; r < 4; ++r) {
      const int e = i + r % 2 * (D / 16), pairs = r / 2 * 2;
      a[r] =
          pair(word(v.of[pairs][e / 8], e % 8 / 2), word(v.of[pairs + 1][e / 8], e % 8 / 2), e % 2);
    }
    cuda::multiply(sums.o[i], a, weights[0], weights[1]);
  }
}

template <int D>
__device__ __forceinline__ void clear(Sums<D>& sums) {
#pragma unroll
  for (int i = 0; i < D / 16; ++i) sums.o[i][0] = sums.o[i][1] = sums.o[i][2] = sums.o[i][3] = 0;
  sums.most = -INFINITY;
  sums.sum = 0;
}

}  // namespace halo::decode
