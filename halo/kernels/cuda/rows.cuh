// Sums over the threads of a block. Device code.
#pragma once

#include "halo/kernels/cuda/elements.cuh"

namespace halo::cuda {

inline constexpr int kMostThreads = 1024;

struct Sum {
  __device__ static float of(float a, float b) { return a + b; }
  static constexpr float kNone = 0;
};
struct Max {  // passes over NaN
  __device__ static float of(float a, float b) { return fmaxf(a, b); }
  static constexpr float kNone = -INFINITY;
};
struct Largest {  // of numbers that are not negative; NaN where one is, whose bits are above all
  __device__ static float of(float a, float b) {
    return __uint_as_float(max(__float_as_uint(a), __float_as_uint(b)));
  }
  static constexpr float kNone = 0;
};

// Each of x over the warps' lanes of one group of `width` lanes.
template <class Fold, int kCount>
__device__ __forceinline__ void fold_lanes(float (&x)[kCount], int width = 32) {
#pragma unroll
  for (int i = 0; i < kCount; ++i) {
    for (int far = width / 2; far > 0; far /= 2)
      x[i] = Fold::of(x[i], __shfl_xor_sync(~0u, x[i], far));
  }
}

// Each of x over all threads of the block; every thread gets the same bits. One barrier, before
// which `scratch` is written and after which it is read: calls that follow each other alternate
// between two scratches.
template <class Fold, int kCount>
__device__ __forceinline__ void fold_block(float (&x)[kCount], float (&scratch)[kCount][32]) {
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32, warps = blockDim.x / 32;
  fold_lanes<Fold>(x);
  if (warps == 1) return;
  if (lane == 0) {
#pragma unroll
    for (int i = 0; i < kCount; ++i) scratch[i][warp] = x[i];
  }
  __syncthreads();
#pragma unroll
  for (int i = 0; i < kCount; ++i) x[i] = lane < warps ? scratch[i][lane] : Fold::kNone;
  fold_lanes<Fold>(x);
}

}  // namespace halo::cuda
