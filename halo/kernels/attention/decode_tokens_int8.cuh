// decode_tokens.cuh for keys and values in int8 with a scale a token, which the tensor cores take
// as they are stored. What they are multiplied with has 16 bits, as two int8: exact sums of
// integers, with an error of 2^-16 of the largest query number of a head, and of the largest weight
// among 32 tokens, where bf16 has one of 2^-9 of each.
//   q = factor (256 high + low): a product's rows 0..7 are the high parts, 8..15 the low ones.
//   weights = factor (256 high + low), none negative, so bytes from 0 to 255: its columns. Of up to
//   four query rows columns 0..3 are the high parts and 4..7 the low ones, else there are two
//   products.
#pragma once

#include "halo/kernels/attention/decode_tokens.cuh"

namespace halo::decode {

// Rows of queries that a product with the values takes with both of their parts.
constexpr int kFewRows = 4;

template <int D>
struct Queries<D, int8_t> {
  uint32_t high[D / 16], low[D / 16];
  float factor;
};
// What a lane holds of 32 tokens: keys of tokens key_token(0..3), values of tokens 4t.. and
// 16 + 4t.., and the scales of the latter in both.
template <int D>
struct Keys<D, int8_t> {
  uint4 of[4][D / 64];
  float scales[8];
};
template <int D>
struct Values<D, int8_t> {
  uint32_t of[8][D / 32];
  float scales[8];
};

// The token whose key is a lane's column of tile `tile` of the scores, so that a lane has the
// scores of the tokens whose values it has.
__device__ __forceinline__ int key_token(int tile) {
  const int g = threadIdx.x % 32 / 4;
  return 2 * g - g % 2 + tile % 2 * 2 + tile / 2 * 16;
}

__device__ __forceinline__ int token_of_score(int i, int8_t /*type*/) {
  return i / 4 * 16 + threadIdx.x % 4 * 4 + i % 4;
}

// The largest of numbers that are not negative, over the four lanes of a row; NaN where one is.
template <int kCount>
__device__ __forceinline__ float most_of(const float (&x)[kCount]) {
  float most[1] = {};
#pragma unroll
  for (const float value : x) most[0] = cuda::Largest::of(most[0], value);
  cuda::fold_lanes<cuda::Largest>(most, 4);
  return most[0];
}

// Every lane of the warp calls it.
template <int D>
__device__ __forceinline__ void load_queries(const Bf16* numbers, float scale,
                                             Queries<D, int8_t>& to) {
  const int t = threadIdx.x % 4;
  float x[D / 4], sizes[D / 4];
#pragma unroll
  for (int j = 0; j < D / 64; ++j) {
    float piece[16] = {};
    if (numbers) cuda::load(numbers + 64 * j + 16 * t, piece);
#pragma unroll
    for (int i = 0; i < 16; ++i) {
      x[16 * j + i] = piece[i];
      sizes[16 * j + i] = fabsf(piece[i]);
    }
  }
  const float most = most_of(sizes), by = most > 0 ? cuda::kMost16 / most : 0;
  to.factor = most * (1 / cuda::kMost16) * scale;
#pragma unroll
  for (int w = 0; w < D / 16; ++w) {
    int rounded[4];
#pragma unroll
    for (int i = 0; i < 4; ++i) rounded[i] = __float2int_rn(x[4 * w + i] * by);
    const cuda::HighLow parts = cuda::split16(rounded);
    to.high[w] = parts.high;
    to.low[w] = parts.low;
  }
}

// What a warp copies of a group of tokens, each lane its own pieces and nobody else's, so that no
// lane waits for another: four tiles of keys, eight values, and the scales.
template <int D>
struct Staged {
  uint4 keys[4][D / 64][32];
  uint32_t values[8][32][D / 32];
  float4 scales[4][32];  // of keys, then of values: of tokens 4t.., 16 + 4t..
};

template <int D>
__device__ __forceinline__ void copy_keys(const int8_t* from, int stride, int last, Staged<D>& to) {
  const int lane = threadIdx.x % 32, t = lane % 4;
#pragma unroll
  for (int tile = 0; tile < 4; ++tile) {
    const int8_t* row = from + min(key_token(tile), last) * stride + t * 16;
#pragma unroll
    for (int j = 0; j < D / 64; ++j) cuda::copy_once<16>(&to.keys[tile][j][lane], row + 64 * j);
  }
}

template <int D>
__device__ __forceinline__ void copy_values(const int8_t* from, int stride, int last,
                                            Staged<D>& to) {
  const int lane = threadIdx.x % 32, g = lane / 4;
#pragma unroll
  for (int i = 0; i < 8; ++i) {
    const int8_t* row = from + min(token_of_score(i, int8_t{}), last) * stride + g * (D / 8);
    cuda::copy_once<D / 8>(to.values[i][lane], row);
  }
}

// `which`: 0 for keys, 1 for values.
template <int D>
__device__ __forceinline__ void copy_scales(const float* from, int which, Staged<D>& to) {
  const int lane = threadIdx.x % 32, t = lane % 4;
#pragma unroll
  for (int i = 0; i < 2; ++i)
    cuda::copy_once<16>(&to.scales[2 * which + i][lane], from + 16 * i + 4 * t);
}

// 0 of what is not stored.
template <int D>
__device__ __forceinline__ void read_scales(const Staged<D>& from, int which, int last,
                                            float (&to)[8]) {
  const int lane = threadIdx.x % 32;
#pragma unroll
  for (int i = 0; i < 2; ++i) {
    const float4 four = from.scales[2 * which + i][lane];
    const float all[4] = {four.x, four.y, four.z, four.w};
#pragma unroll
    for (int j = 0; j < 4; ++j)
      to[4 * i + j] = token_of_score(4 * i + j, int8_t{}) <= last ? all[j] : 0;
  }
}

template <int D>
__device__ __forceinline__ void read_keys(const Staged<D>& from, int last, Keys<D, int8_t>& to) {
  const int lane = threadIdx.x % 32;
#pragma unroll
  for (int tile = 0; tile < 4; ++tile) {
#pragma unroll
    for (int j = 0; j < D / 64; ++j) to.of[tile][j] = from.keys[tile][j][lane];
  }
  read_scales(from, 0, last, to.scales);
}

template <int D>
__device__ __forceinline__ void read_values(const Staged<D>& from, int last,
                                            Values<D, int8_t>& to) {
  const int lane = threadIdx.x % 32;
#pragma unroll
  for (int i = 0; i < 8; ++i) {
    if constexpr (D == 128) {
      const uint4 piece = *reinterpret_cast<const uint4*>(from.values[i][lane]);
#pragma unroll
      for (int w = 0; w < 4; ++w) to.of[i][w] = word(piece, w);
    } else {
      const uint2 piece = *reinterpret_cast<const uint2*>(from.values[i][lane]);
      to.of[i][0] = piece.x;
      to.of[i][1] = piece.y;
    }
  }
  read_scales(from, 1, last, to.scales);
}

template <int D>
__device__ __forceinline__ void multiply_keys(const Queries<D, int8_t>& q, const Keys<D, int8_t>& k,
                                              float (&scores)[8]) {
#pragma unroll
  for (int tile = 0; tile < 4; ++tile) {
    int s[4] = {};
#pragma unroll
    for (int w = 0; w < D / 16; w += 2) {
      const uint4 key = k.of[tile][w / 4];
      const uint32_t parts[4] = {q.high[w], q.low[w], q.high[w + 1], q.low[w + 1]};
      cuda::multiply_int8(s, parts, word(key, w % 4), word(key, w % 4 + 1));
    }
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      // At most 127 * 32,639 * 128 < 2^31.
      const int exact = s[i] * 256 + s[i + 2];
      scores[2 * tile + i] = __int2float_rn(exact) * k.scales[2 * tile + i];
    }
  }
}

// words[e] = the bytes e of four words, in their order.
__device__ __forceinline__ void transpose_bytes(uint32_t a, uint32_t b, uint32_t c, uint32_t d,
                                                uint32_t (&words)[4]) {
  const uint32_t ab = __byte_perm(a, b, 0x5140), cd = __byte_perm(c, d, 0x5140);
  const uint32_t ab_high = __byte_perm(a, b, 0x7362), cd_high = __byte_perm(c, d, 0x7362);
  words[0] = __byte_perm(ab, cd, 0x5410);
  words[1] = __byte_perm(ab, cd, 0x7632);
  words[2] = __byte_perm(ab_high, cd_high, 0x5410);
  words[3] = __byte_perm(ab_high, cd_high, 0x7632);
}

// sums.o += the values' integers times the bytes of a lane's eight tokens, by `factor`, which is
// that of the lane's row g.
template <int D>
__device__ __forceinline__ void add_products(const Values<D, int8_t>& v, const uint32_t (&bytes)[2],
                                             float factor, Sums<D>& sums) {
  // A float from 2^23 to 2^24 has its integer in its low bits: a sum that starts with the bits of
  // 1.5 * 2^23 is a float when it ends. It moves by no more than 32 * 128 * 255 < 2^22.
  constexpr float kMiddle = 12582912;
  constexpr int kMiddleBits = 0x4B400000;
  const int t = threadIdx.x % 4;
  const float first = __shfl_sync(~0u, factor, 8 * t), second = __shfl_sync(~0u, factor, 8 * t + 4);
#pragma unroll
  for (int w = 0; w < D / 64; ++w) {
    uint32_t a[4][4];  // [r] of elements 4w ..
#pragma unroll
    for (int r = 0; r < 4; ++r) {
      const int at = w + r % 2 * (D / 64), four = r / 2 * 4;
      transpose_bytes(v.of[four][at], v.of[four + 1][at], v.of[four + 2][at], v.of[four + 3][at],
                      a[r]);
    }
#pragma unroll
    for (int e = 0; e < 4; ++e) {
      const uint32_t elements[4] = {a[0][e], a[1][e], a[2][e], a[3][e]};
      int sum[4];
      cuda::multiply_int8_by_bytes(sum, elements, bytes[0], bytes[1], kMiddleBits);
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        float& o = sums.o[4 * w + e][i];
        o = fmaf(__int_as_float(sum[i]) - kMiddle, i % 2 ? second : first, o);
      }
    }
  }
}

template <int D>
__device__ __forceinline__ void add_values(const Values<D, int8_t>& v, const float (&by)[8],
                                           int rows, Sums<D>& sums) {
  constexpr float kMost = 65535, kBytes = 8388608;  // 2^23: the integer is in the low bits
  constexpr float kNothing = 1e-30f;                // its reciprocal times kMost is a number
  float weights[8];
#pragma unroll
  for (int i = 0; i < 8; ++i) weights[i] = by[i] * v.scales[i];
  const float most = most_of(weights), factor = most * (1 / kMost);
  const float inverse = most > kNothing ? __fdividef(kMost, most) : 0;
  uint32_t whole[8];
#pragma unroll
  for (int i = 0; i < 8; ++i) whole[i] = __float_as_uint(fmaf(weights[i], inverse, kBytes));
  const auto part = [&](bool high) {
    const uint32_t which = high ? 0x51 : 0x40;
    uint32_t bytes[2];
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      bytes[i] = __byte_perm(__byte_perm(whole[4 * i], whole[4 * i + 1], which),
                             __byte_perm(whole[4 * i + 2], whole[4 * i + 3], which), 0x5410);
    }
    add_products(v, bytes, high ? 256 * factor : factor, sums);
  };
  if (rows <= kFewRows) {
    part(threadIdx.x % 32 / 4 < kFewRows);
  } else {
    part(true);
    part(false);
  }
}

template <int D>
__device__ __forceinline__ void finish_values(Sums<D>& sums, int rows, int8_t /*type*/) {
  if (rows > kFewRows) return;
#pragma unroll
  for (auto& element : sums.o) {
#pragma unroll
    for (float& o : element) o += __shfl_xor_sync(~0u, o, 2);
  }
}

}  // namespace halo::decode
