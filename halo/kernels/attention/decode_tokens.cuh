// What a warp of decode_attention does with a group of tokens: loads them, multiplies queries with
// keys, and weights with values; here in bf16, in decode_tokens_int8.cuh in int8. Device code.
#pragma once

#include "halo/kernels/cuda/elements.cuh"
#include "halo/kernels/cuda/mma.cuh"
#include "halo/kernels/cuda/overlap.cuh"
#include "halo/kernels/cuda/rows.cuh"

namespace halo::decode {

using Bf16 = __nv_bfloat16;

template <class T>
constexpr int kGroup = sizeof(T) == 1 ? 32 : 16;  // tokens a warp takes at a time
template <class T>
constexpr int kScores = kGroup<T> / 4;  // of a lane

// What a lane holds of the queries: row g, the same places as of a key, times `factor`.
template <int D, class T>
struct Queries {
  uint4 of[D / 32];
  float factor;
};
// What a lane holds of 16 tokens: keys of tokens g and g + 8, values of 2t, 2t+1, 2t+8, 2t+9. A
// token's numbers lie in pieces of 16 bytes, of which its lanes take turns.
template <int D, class T>
struct Keys {
  uint4 of[2][D / 32];
};
template <int D, class T>
struct Values {
  uint4 of[4][D / 64];
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

// `numbers` of the lane's row, null: there is no such row.
template <int D>
__device__ __forceinline__ void load_queries(const Bf16* numbers, float scale,
                                             Queries<D, Bf16>& to) {
  const int t = threadIdx.x % 4;
#pragma unroll
  for (int j = 0; j < D / 32; ++j)
    to.of[j] = numbers ? *reinterpret_cast<const uint4*>(numbers + 32 * j + 8 * t) : uint4{};
  to.factor = scale;
}

// From the first token of the group on.
template <int D>
__device__ __forceinline__ void load_keys(const Bf16* from, int stride, int last,
                                          Keys<D, Bf16>& to) {
  const int g = threadIdx.x % 32 / 4, t = threadIdx.x % 4;
#pragma unroll
  for (int tile = 0; tile < 2; ++tile) {
    const Bf16* row = from + min(tile * 8 + g, last) * stride + t * 8;
#pragma unroll
    for (int j = 0; j < D / 32; ++j) to.of[tile][j] = cuda::load_once(row + 32 * j);
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

// The token of the group that a lane's score i is of.
__device__ __forceinline__ int token_of_score(int i, Bf16 /*type*/) {
  return i / 2 * 8 + threadIdx.x % 4 * 2 + i % 2;
}

// Scores of row g, still to be multiplied with the queries' factor.
template <int D>
__device__ __forceinline__ void multiply_keys(const Queries<D, Bf16>& q, const Keys<D, Bf16>& k,
                                              float (&scores)[4]) {
#pragma unroll
  for (int tile = 0; tile < 2; ++tile) {
    float s[4] = {};
#pragma unroll
    for (int j = 0; j < D / 32; ++j) {
      const uint4 key = k.of[tile][j], query = q.of[j];
      const uint32_t first[4] = {query.x, 0, query.y, 0}, second[4] = {query.z, 0, query.w, 0};
      cuda::multiply(s, first, key.x, key.y);
      cuda::multiply(s, second, key.z, key.w);
    }
    scores[2 * tile] = s[0];
    scores[2 * tile + 1] = s[1];
  }
}

// The scores become weights, and the sums so far are brought to the new maximum.
template <int D, int kCount>
__device__ __forceinline__ void weigh(float (&scores)[kCount], Sums<D>& sums) {
  float most[1] = {scores[0]};
#pragma unroll
  for (int i = 1; i < kCount; ++i) most[0] = fmaxf(most[0], scores[i]);
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
}

// sums.o += weights times values.
template <int D>
__device__ __forceinline__ void add_values(const Values<D, Bf16>& v, const float (&by)[4],
                                           int /*rows*/, Sums<D>& sums) {
  uint32_t weights[2];
#pragma unroll
  for (int i = 0; i < 2; ++i) {
    const __nv_bfloat162 both = __floats2bfloat162_rn(by[2 * i], by[2 * i + 1]);
    weights[i] = *reinterpret_cast<const uint32_t*>(&both);
  }
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

// Once all tokens of a sequence are added: o of the lane's rows.
template <int D>
__device__ __forceinline__ void finish_values(Sums<D>& /*sums*/, int /*rows*/, Bf16 /*type*/) {}

template <int D>
__device__ __forceinline__ void clear(Sums<D>& sums) {
#pragma unroll
  for (int i = 0; i < D / 16; ++i) sums.o[i][0] = sums.o[i][1] = sums.o[i][2] = sums.o[i][3] = 0;
  sums.most = -INFINITY;
  sums.sum = 0;
}

}  // namespace halo::decode
