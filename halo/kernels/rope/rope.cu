// split_heads on the GPU. Bound by memory. A block takes the heads of one kind (q, k, v or gate) of
// a token; a thread holds 8 elements of a head's first half and the 8 of the second half that they
// are rotated with, so norm, rotation and scale need no shared memory. In backward a block takes
// every gridDim.x-th token and keeps its part of the norm's gradient in registers.
#include <algorithm>

#include "halo/kernels/cuda/overlap.cuh"
#include "halo/kernels/cuda/partial_sums.h"
#include "halo/kernels/cuda/rows.cuh"
#include "halo/kernels/rope/rope_launch.h"

namespace halo {
namespace {

using cuda::load;
using cuda::store;

constexpr int kThreads = 256;
constexpr int N = cuda::kWide;

// Heads of one kind.
template <class T>
struct Kind {
  int64_t first = 0, count = 0;  // heads of the stacked row before it, and its own
  const T* norm = nullptr;
  const float *cos = nullptr, *sin = nullptr, *scale = nullptr;
  void* heads = nullptr;    // [rows, count * head_dim] of T; int8 where there are scales
  float* scales = nullptr;  // [blocks, count, block_size] of the rows
  float* partial = nullptr;
  const int64_t* rows = nullptr;  // which row of heads a row is; null: the same
};

template <class T>
struct Split {
  Kind<T> kinds[4];
  int64_t block_size;
  const T* stacked;
  T* d_stacked;
  int64_t rows, columns;
  int head_dim, lanes;  // lanes = head_dim / 16
  float eps;
};

struct Halves {
  float a[N], b[N];
};

template <class T>
__device__ __forceinline__ Halves load_halves(const T* head, int half) {
  Halves x;
  load(head, x.a);
  load(head + half, x.b);
  return x;
}

template <class T>
__device__ __forceinline__ void store_halves(const Halves& x, T* head, int half) {
  store(x.a, head);
  store(x.b, head + half);
}

// sign +1 rotates, -1 is the transpose. cos and sin are those of the token and the thread's place.
__device__ __forceinline__ void rotate(Halves& x, const float* cos, const float* sin, float sign) {
  float c[N], s[N];
  load(cos, c);
  load(sin, s);
#pragma unroll
  for (int i = 0; i < N; ++i) {
    const float turn = sign * s[i], a = x.a[i];
    x.a[i] = a * c[i] - x.b[i] * turn;
    x.b[i] = x.b[i] * c[i] + a * turn;
  }
}

__device__ __forceinline__ void scale_halves(Halves& x, float scale) {
#pragma unroll
  for (int i = 0; i < N; ++i) {
    x.a[i] *= scale;
    x.b[i] *= scale;
  }
}

// The head's largest number's distance from 0, in all of its lanes, NaN where one is. Every lane of
// the warp calls it.
__device__ __forceinline__ float most_of(const Halves& x, int lanes) {
  float most[1] = {};
#pragma unroll
  for (int i = 0; i < N; ++i)
    most[0] = cuda::Largest::of(most[0], cuda::Largest::of(fabsf(x.a[i]), fabsf(x.b[i])));
  cuda::fold_lanes<cuda::Largest>(most, lanes);
  return most[0];
}

// The same numbers as to_int8 gives.
__device__ __forceinline__ void store_int8(const float (&x)[N], float by, int8_t* to) {
  union {
    uint2 words;
    int8_t bytes[N];
  } pack;
#pragma unroll
  for (int i = 0; i < N; ++i)
    pack.bytes[i] = static_cast<int8_t>(rintf(fminf(fmaxf(x[i] / by, -127.0f), 127.0f)));
  *reinterpret_cast<uint2*>(to) = pack.words;
}

// 1 / rms of the head, in all of its lanes; every lane of the warp calls it.
__device__ __forceinline__ float reciprocal_rms(float squares, int lanes, int head_dim, float eps) {
  float sum[1] = {squares};
  cuda::fold_lanes<cuda::Sum>(sum, lanes);
  return 1.0f / sqrtf(sum[0] / static_cast<float>(head_dim) + eps);
}

template <class T>
__global__ void __launch_bounds__(kThreads) split_heads_aten(const Split<T> split) {
  const Kind<T>& kind = split.kinds[blockIdx.y];
  const int64_t row = blockIdx.x;
  const int half = split.head_dim / 2, place = threadIdx.x % split.lanes * N;
  const int slots = static_cast<int>(kind.count) * split.lanes;
  const int64_t to = kind.rows ? kind.rows[row] : row;
  cuda::wait_for_inputs();
  cuda::let_next_start();
  if (to < 0) return;
  for (int base = 0; base < slots; base += blockDim.x) {
    const int slot = base + threadIdx.x;
    const bool holds = slot < slots;
    const int64_t at = int64_t{slot / split.lanes} * split.head_dim + place;
    Halves x{};
    if (holds) {
      x = load_halves(split.stacked + row * split.columns + kind.first * split.head_dim + at, half);
    }
    if (kind.norm) {
      float squares = 0;
#pragma unroll
      for (int i = 0; i < N; ++i) squares += x.a[i] * x.a[i] + x.b[i] * x.b[i];
      const float rstd = reciprocal_rms(squares, split.lanes, split.head_dim, split.eps);
      const Halves w = load_halves(kind.norm + place, half);
#pragma unroll
      for (int i = 0; i < N; ++i) {
        x.a[i] = cuda::rounded<T>(x.a[i] * rstd) * w.a[i];
        x.b[i] = cuda::rounded<T>(x.b[i] * rstd) * w.b[i];
      }
    }
    if (kind.cos) rotate(x, kind.cos + row * half + place, kind.sin + row * half + place, 1.0f);
    if (kind.scale) scale_halves(x, kind.scale[row]);
    const int64_t place_of_head = to * kind.count * split.head_dim + at;
    if (!kind.scales) {
      if (holds) store_halves(x, static_cast<T*>(kind.heads) + place_of_head, half);
      continue;
    }
#pragma unroll
    for (int i = 0; i < N; ++i) {
      x.a[i] = cuda::rounded<T>(x.a[i]);
      x.b[i] = cuda::rounded<T>(x.b[i]);
    }
    const float scale = most_of(x, split.lanes) * (1.0f / 127), by = fmaxf(scale, 1e-37f);
    if (!holds) continue;
    int8_t* bytes = static_cast<int8_t*>(kind.heads) + place_of_head;
    store_int8(x.a, by, bytes);
    store_int8(x.b, by, bytes + half);
    const int64_t block = to / split.block_size, within = to % split.block_size;
    if (place == 0)
      kind.scales[(block * kind.count + slot / split.lanes) * split.block_size + within] = scale;
  }
}

// partial[blockIdx.x] = the sum of dw over the block's threads with the same place.
__device__ __forceinline__ void store_partial(const Halves& dw, int lanes, int half,
                                              float* partial) {
  __shared__ float all[kThreads * 2 * N];
  float* mine = all + threadIdx.x * 2 * N;
#pragma unroll
  for (int i = 0; i < N; ++i) {
    mine[i] = dw.a[i];
    mine[N + i] = dw.b[i];
  }
  __syncthreads();
  for (int column = threadIdx.x; column < 2 * half; column += blockDim.x) {
    const int in_half = column % half, lane = in_half / N;
    const int element = in_half % N + (column < half ? 0 : N);
    float sum = 0;
    for (int thread = lane; thread < blockDim.x; thread += lanes)
      sum += all[thread * 2 * N + element];
    partial[int64_t{blockIdx.x} * 2 * half + column] = sum;
  }
}

template <class T>
__global__ void __launch_bounds__(kThreads) split_heads_aten_backward(const Split<T> split) {
  const Kind<T>& kind = split.kinds[blockIdx.y];
  const int half = split.head_dim / 2, place = threadIdx.x % split.lanes * N;
  const int slots = static_cast<int>(kind.count) * split.lanes;
  Halves dw{};
  for (int64_t row = blockIdx.x; row < split.rows; row += gridDim.x) {
    for (int base = 0; base < slots; base += blockDim.x) {
      const int slot = base + threadIdx.x;
      const bool holds = slot < slots;
      const int64_t at = int64_t{slot / split.lanes} * split.head_dim + place;
      const int64_t at_stacked = row * split.columns + kind.first * split.head_dim + at;
      Halves dy{};
      if (holds && kind.heads) {
        dy = load_halves(static_cast<const T*>(kind.heads) + row * kind.count * split.head_dim + at,
                         half);
        if (kind.scale) scale_halves(dy, kind.scale[row]);
        if (kind.cos)
          rotate(dy, kind.cos + row * half + place, kind.sin + row * half + place, -1.0f);
      }
      if (kind.norm) {
        Halves x{};
        if (holds) x = load_halves(split.stacked + at_stacked, half);
        const Halves w = load_halves(kind.norm + place, half);
        float sums[2] = {};  // of x^2, and of x along the weighted gradient
#pragma unroll
        for (int i = 0; i < N; ++i) {
          sums[0] += x.a[i] * x.a[i] + x.b[i] * x.b[i];
          sums[1] += dy.a[i] * w.a[i] * x.a[i] + dy.b[i] * w.b[i] * x.b[i];
        }
        cuda::fold_lanes<cuda::Sum>(sums, split.lanes);
        const float rstd = 1.0f / sqrtf(sums[0] / static_cast<float>(split.head_dim) + split.eps);
        const float pull = sums[1] * rstd * rstd / static_cast<float>(split.head_dim);
#pragma unroll
        for (int i = 0; i < N; ++i) {
          dw.a[i] += dy.a[i] * x.a[i] * rstd;
          dw.b[i] += dy.b[i] * x.b[i] * rstd;
          dy.a[i] = rstd * (dy.a[i] * w.a[i] - pull * x.a[i]);
          dy.b[i] = rstd * (dy.b[i] * w.b[i] - pull * x.b[i]);
        }
      }
      if (holds) store_halves(dy, split.d_stacked + at_stacked, half);
    }
  }
  if (kind.partial) store_partial(dw, split.lanes, half, kind.partial);
}

template <class T>
Split<T> split_of(const SplitHeadsLaunch& args) {
  const int64_t h = args.heads, g = args.kv_heads;
  Split<T> split{};
  split.kinds[0] = {0,        h,        static_cast<const T*>(args.q_norm),
                    args.cos, args.sin, args.q_scale,
                    args.q,   nullptr,  args.partial_q};
  split.kinds[1] = {h,
                    g,
                    static_cast<const T*>(args.k_norm),
                    args.cos,
                    args.sin,
                    nullptr,
                    args.k,
                    args.k_scales,
                    args.partial_k};
  split.kinds[2] = {h + g, g};
  split.kinds[2].heads = args.v;
  split.kinds[2].scales = args.v_scales;
  split.block_size = args.block_size;
  split.kinds[1].rows = split.kinds[2].rows = args.kv_rows;
  split.kinds[3] = {h + 2 * g, h};
  split.kinds[3].heads = args.gate;
  split.stacked = static_cast<const T*>(args.stacked);
  split.d_stacked = static_cast<T*>(args.d_stacked);
  split.rows = args.rows;
  split.columns = ((args.has_gate ? 2 : 1) * h + 2 * g) * args.head_dim;
  split.head_dim = static_cast<int>(args.head_dim);
  split.lanes = split.head_dim / (2 * N);
  split.eps = args.eps;
  return split;
}

}  // namespace

void launch_split_heads(const SplitHeadsLaunch& args, void* stream) {
  if (args.rows == 0) return;
  cuda::with_element(args.element, [&](auto zero) {
    using T = decltype(zero);
    const Split<T> split = split_of<T>(args);
    const int64_t slots = std::max(args.heads, args.kv_heads) * split.lanes;
    const auto threads = std::min<int64_t>(cuda::threads_for(slots), kThreads);
    const unsigned kinds = args.has_gate && (args.gate || args.d_stacked) ? 4 : 3;
    const auto on = static_cast<cudaStream_t>(stream);
    if (args.d_stacked) {
      const dim3 grid(partial_blocks(args.rows), kinds);
      split_heads_aten_backward<T><<<grid, threads, 0, on>>>(split);
    } else if (args.kv_rows) {
      cuda::launch_overlapped(split_heads_aten<T>, dim3(args.rows, kinds),
                              static_cast<int>(threads), 0, stream, split);
    } else {
      split_heads_aten<T><<<dim3(args.rows, kinds), threads, 0, on>>>(split);
    }
  });
  check_launch("split_heads");
}

}  // namespace halo
