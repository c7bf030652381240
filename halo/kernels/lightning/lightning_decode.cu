// A decoding step of lightning attention, bound by reading and writing the states once. A block has
// 32 columns of a head's state in registers, four a thread, while it goes through the sequence's
// new tokens: norm and rotation of the head's query and key by a warp each, then the recurrence as
// it is written. The states are read before the kernel that makes the projections has ended. 32
// columns are whole cache lines: with 16, states of 256 sequences move at 2.6 TB/s in place of 4.0.
#include "halo/kernels/cuda/elements.cuh"
#include "halo/kernels/cuda/overlap.cuh"
#include "halo/kernels/cuda/rows.cuh"
#include "halo/kernels/lightning/lightning_decode_launch.h"

namespace halo {
namespace {

constexpr int kThreads = 256, kWarps = kThreads / 32;
constexpr int kColumns = 32, kLanes = kColumns / 4;  // of a block; threads a row
constexpr int kRowStep = kThreads / kLanes;

// A warp's head: normed, rotated and rounded as split_heads does, in fp32.
template <class T, int D>
__device__ void prepare_head(const T* head, const T* norm, float eps, const float* cos,
                             const float* sin, float* to) {
  constexpr int kEach = D / 32;  // neighbours
  const int lane = threadIdx.x % 32, first = lane * kEach;
  float x[kEach];
#pragma unroll
  for (int i = 0; i < kEach; ++i) x[i] = cuda::widen(head[first + i]);
  if (norm) {
    float squares[1] = {};
#pragma unroll
    for (float value : x) squares[0] += value * value;
    cuda::fold_lanes<cuda::Sum>(squares);
    const float rstd = 1.0f / sqrtf(squares[0] / static_cast<float>(D) + eps);
#pragma unroll
    for (int i = 0; i < kEach; ++i)
      x[i] = cuda::rounded<T>(x[i] * rstd) * cuda::widen(norm[first + i]);
  }
  if (cos) {
#pragma unroll
    for (int i = 0; i < kEach; ++i) {
      const float other = __shfl_xor_sync(~0u, x[i], 16);
      const int place = first % (D / 2) + i;
      x[i] = x[i] * cos[place] + (lane < 16 ? -other : other) * sin[place];
    }
  }
#pragma unroll
  for (int i = 0; i < kEach; ++i) to[first + i] = cuda::rounded<T>(x[i]);
}

template <class T, int D>
__global__ void __launch_bounds__(kThreads)
    lightning_decode(const __grid_constant__ LightningDecodeLaunch p) {
  cuda::let_next_start();  // the projection of o, which reads weights alone before it waits
  constexpr int kHeld = D / kRowStep;  // rows of the state a thread holds
  __shared__ float q[D], k[D];
  __shared__ float4 sums[kWarps][kLanes];
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  const int column = blockIdx.x * kColumns + threadIdx.x % kLanes * 4;
  const int row = threadIdx.x / kLanes;  // then every kRowStep-th
  const int head = blockIdx.y, kv_head = head / static_cast<int>(p.heads / p.kv_heads);
  const int64_t sequence = blockIdx.z, slot = p.slots[sequence];
  float* state = p.states + ((slot * p.heads + head) * D + row) * D + column;
  float4 held[kHeld];
  if (slot >= 0) {
#pragma unroll
    for (int i = 0; i < kHeld; ++i)
      held[i] = *reinterpret_cast<const float4*>(state + i * kRowStep * D);
  }
  cuda::wait_for_inputs();
  if (slot < 0) return;
  const float loss = p.losses[head];
  for (int64_t n = sequence * p.tokens; n < (sequence + 1) * p.tokens; ++n) {
    const T* stacked = static_cast<const T*>(p.stacked) + n * p.stride;
    const float* cos = p.cos ? p.cos + n * (D / 2) : nullptr;
    const float* sin = p.cos ? p.sin + n * (D / 2) : nullptr;
    if (warp == 0) {
      prepare_head<T, D>(stacked + int64_t{head} * D, static_cast<const T*>(p.q_norm), p.eps, cos,
                         sin, q);
    } else if (warp == 1) {
      prepare_head<T, D>(stacked + (p.heads + kv_head) * D, static_cast<const T*>(p.k_norm), p.eps,
                         cos, sin, k);
    }
    const T* values = stacked + (p.heads + p.kv_heads + kv_head) * D + column;
    const float v[4] = {cuda::widen(values[0]), cuda::widen(values[1]), cuda::widen(values[2]),
                        cuda::widen(values[3])};
    __syncthreads();
    float o[4] = {};
#pragma unroll
    for (int i = 0; i < kHeld; ++i) {
      const float key = k[row + i * kRowStep], query = q[row + i * kRowStep];
      float* x = &held[i].x;
#pragma unroll
      for (int c = 0; c < 4; ++c) {
        x[c] += key * v[c] - loss * x[c];
        o[c] += query * x[c];
      }
    }
#pragma unroll
    for (int c = 0; c < 4; ++c) {
      for (int far = kLanes; far < 32; far *= 2) o[c] += __shfl_xor_sync(~0u, o[c], far);
    }
    if (lane < kLanes) sums[warp][lane] = make_float4(o[0], o[1], o[2], o[3]);
    __syncthreads();
    if (threadIdx.x < kColumns) {
      float sum = 0;
#pragma unroll
      for (int w = 0; w < kWarps; ++w) sum += (&sums[w][threadIdx.x / 4].x)[threadIdx.x % 4];
      static_cast<T*>(p.o)[(n * p.heads + head) * D + blockIdx.x * kColumns + threadIdx.x] =
          cuda::narrow<T>(sum * p.scale);
    }
  }
#pragma unroll
  for (int i = 0; i < kHeld; ++i) *reinterpret_cast<float4*>(state + i * kRowStep * D) = held[i];
}

template <class T, int D>
void launch(const LightningDecodeLaunch& args, void* stream) {
  const dim3 grid(D / kColumns, args.heads, args.sequences);
  cuda::launch_overlapped(lightning_decode<T, D>, grid, kThreads, 0, stream, args);
}

}  // namespace

void launch_lightning_decode(const LightningDecodeLaunch& args, void* stream) {
  if (args.sequences == 0) return;
  cuda::with_element(args.element, [&](auto zero) {
    using T = decltype(zero);
    args.head_dim == 64 ? launch<T, 64>(args, stream) : launch<T, 128>(args, stream);
  });
  check_launch("lightning_decode");
}

}  // namespace halo
