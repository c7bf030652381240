// AdamW in one pass over the arenas, and the squared norm in two: fixed blocks, then their sums.
// Whether the step is skipped, and the factor of its gradients, are read on the device.
#include "halo/kernels/adamw/adamw_launch.h"
#include "halo/kernels/cuda/elements.cuh"

namespace halo {
namespace {

constexpr int kThreads = 256;
constexpr int N = 4;  // fp32 elements of 16 bytes

// Elements [at, at + kCount); kCount is N or 1.
template <int kCount>
__device__ __forceinline__ void load_floats(const float* from, float (&to)[kCount]) {
  if constexpr (kCount == N) {
    *reinterpret_cast<float4*>(to) = *reinterpret_cast<const float4*>(from);
  } else {
    to[0] = *from;
  }
}

template <int kCount>
__device__ __forceinline__ void store_floats(const float (&from)[kCount], float* to) {
  if constexpr (kCount == N) {
    *reinterpret_cast<float4*>(to) = *reinterpret_cast<const float4*>(from);
  } else {
    *to = from[0];
  }
}

template <int kCount>
__device__ __forceinline__ void store_compute(const AdamWLaunch& a, const float (&x)[kCount],
                                              int64_t at) {
  if (a.compute_element == Element::kFloat) {
    store_floats(x, static_cast<float*>(a.compute) + at);
    return;
  }
  auto* to = static_cast<__nv_bfloat16*>(a.compute) + at;
  if constexpr (kCount == N) {
    union {
      uint2 words;
      __nv_bfloat162 pairs[2];
    } pack;
    pack.pairs[0] = __floats2bfloat162_rn(x[0], x[1]);
    pack.pairs[1] = __floats2bfloat162_rn(x[2], x[3]);
    *reinterpret_cast<uint2*>(to) = pack.words;
  } else {
    *to = __float2bfloat16_rn(x[0]);
  }
}

template <int kCount>
__device__ __forceinline__ void step_elements(const AdamWLaunch& a, float scale, int64_t at) {
  const AdamWFactors& f = a.factors;
  alignas(16) float grad[kCount], m[kCount], v[kCount], master[kCount], mask[kCount];
  load_floats(a.grad + at, grad);
  load_floats(a.m + at, m);
  load_floats(a.v + at, v);
  load_floats(a.master + at, master);
  if (a.decay_mask) load_floats(a.decay_mask + at, mask);
#pragma unroll
  for (int i = 0; i < kCount; ++i) {
    const float g = grad[i] * scale;
    m[i] = f.keep1 * m[i] + f.take1 * g;
    v[i] = f.keep2 * v[i] + f.take2 * (g * g);
    const float change = m[i] / (sqrtf(v[i]) * f.inverse_bias2 + f.eps);
    if (a.decay_mask) master[i] -= f.decay * mask[i] * master[i];
    master[i] -= f.step * change;
  }
  store_floats(m, a.m + at);
  store_floats(v, a.v + at);
  store_floats(master, a.master + at);
  if (a.compute) store_compute(a, master, at);
}

// `wide`: every arena is aligned to 16 bytes. The compute copy of a skipped step is right already.
__global__ void __launch_bounds__(kThreads) adamw(const AdamWLaunch a, bool wide) {
  if (*a.apply == 0.0f) return;
  const float scale = *a.grad_scale;
  const int64_t thread = int64_t{blockIdx.x} * kThreads + threadIdx.x;
  const int64_t begin = thread * N;
  if (wide && begin + N <= a.count) {
    step_elements<N>(a, scale, begin);
  } else {
    for (int64_t at = begin; at < begin + N && at < a.count; ++at) step_elements<1>(a, scale, at);
  }
}

// A block's sum over its threads, in thread 0.
__device__ double block_total(double x) {
  __shared__ double warps[kThreads / 32];
  for (int far = 16; far > 0; far /= 2) x += __shfl_down_sync(~0u, x, far);
  if (threadIdx.x % 32 == 0) warps[threadIdx.x / 32] = x;
  __syncthreads();
  double total = 0;
  for (int warp = 0; warp < kThreads / 32; ++warp) total += warps[warp];
  return total;
}

// Products of two floats are exact in fp64, so only the additions round.
__global__ void __launch_bounds__(kThreads)
    sum_squares(const float* __restrict__ x, int64_t count, bool wide, double* partial) {
  const int64_t begin = int64_t{blockIdx.x} * kNormBlock;
  const int64_t end = min(begin + kNormBlock, count);
  double sums[N] = {};
  for (int64_t at = begin + int64_t{threadIdx.x} * N; at < end; at += int64_t{kThreads} * N) {
    alignas(16) float values[N] = {};
    if (wide && at + N <= end) {
      load_floats(x + at, values);
    } else {
      for (int i = 0; i < N && at + i < end; ++i) values[i] = x[at + i];
    }
#pragma unroll
    for (int i = 0; i < N; ++i) sums[i] += double{values[i]} * double{values[i]};
  }
  const double total = block_total((sums[0] + sums[1]) + (sums[2] + sums[3]));
  if (threadIdx.x == 0) partial[blockIdx.x] = total;
}

__global__ void __launch_bounds__(kThreads)
    sum_partial(const double* __restrict__ partial, int64_t blocks, double* total) {
  double sum = 0;
  for (int64_t b = threadIdx.x; b < blocks; b += kThreads) sum += partial[b];
  sum = block_total(sum);
  if (threadIdx.x == 0) *total = sum;
}

template <class... Arenas>
bool all_aligned(const Arenas*... arenas) {
  return ((reinterpret_cast<uintptr_t>(arenas) % 16 == 0) && ...);
}

}  // namespace

void launch_adamw(const AdamWLaunch& args, void* stream) {
  if (args.count == 0) return;
  const bool wide =
      all_aligned(args.grad, args.decay_mask, args.master, args.m, args.v, args.compute);
  const int64_t blocks = (args.count + kThreads * N - 1) / (kThreads * N);
  adamw<<<blocks, kThreads, 0, static_cast<cudaStream_t>(stream)>>>(args, wide);
  check_launch("adamw");
}

void launch_squared_norm(const float* x, int64_t count, double* partial, double* total,
                         void* stream) {
  const auto on = static_cast<cudaStream_t>(stream);
  const int64_t blocks = norm_blocks(count);
  if (blocks > 0) sum_squares<<<blocks, kThreads, 0, on>>>(x, count, all_aligned(x), partial);
  sum_partial<<<1, kThreads, 0, on>>>(partial, blocks, total);
  check_launch("squared_norm");
}

}  // namespace halo
