// SwiGLU's elementwise part on the GPU. Bound by memory: a block takes a row, a thread 16 bytes of
// both halves at a time.
#include <algorithm>

#include "halo/kernels/cuda/elements.cuh"
#include "halo/kernels/swiglu/swiglu_launch.h"

namespace halo {
namespace {

using cuda::load;
using cuda::store;

constexpr int kThreads = 256;

template <class T, int N>
__global__ void __launch_bounds__(kThreads)
    swiglu_forward(const T* __restrict__ gate_up, T* __restrict__ y, int64_t columns) {
  const int64_t row = blockIdx.x;
  for (int64_t c = int64_t{threadIdx.x} * N; c < columns; c += int64_t{blockDim.x} * N) {
    float g[N], u[N];
    load(gate_up + row * 2 * columns + c, g);
    load(gate_up + row * 2 * columns + columns + c, u);
#pragma unroll
    for (int i = 0; i < N; ++i) g[i] = g[i] * cuda::sigmoid<T>(g[i]) * u[i];
    store(g, y + row * columns + c);
  }
}

template <class T, int N>
__global__ void __launch_bounds__(kThreads)
    swiglu_backward(const T* __restrict__ gate_up, const T* __restrict__ dy,
                    T* __restrict__ d_gate_up, int64_t columns) {
  const int64_t row = blockIdx.x;
  for (int64_t c = int64_t{threadIdx.x} * N; c < columns; c += int64_t{blockDim.x} * N) {
    float g[N], u[N], d[N];
    load(gate_up + row * 2 * columns + c, g);
    load(gate_up + row * 2 * columns + columns + c, u);
    load(dy + row * columns + c, d);
#pragma unroll
    for (int i = 0; i < N; ++i) {
      const float open = cuda::sigmoid<T>(g[i]);
      const float passed = d[i] * open;
      d[i] = passed * u[i] * (1.0f + g[i] * (1.0f - open));
      u[i] = passed * g[i];
    }
    store(d, d_gate_up + row * 2 * columns + c);
    store(u, d_gate_up + row * 2 * columns + columns + c);
  }
}

}  // namespace

void launch_swiglu(const SwigluLaunch& args, void* stream) {
  if (args.rows == 0 || args.columns == 0) return;
  cuda::with_width(
      args.element, args.columns,
      [&](auto zero, auto width) {
        using T = decltype(zero);
        const auto threads = std::min<int64_t>(cuda::threads_for(args.columns / width), kThreads);
        const auto* gate_up = static_cast<const T*>(args.gate_up);
        const auto* dy = static_cast<const T*>(args.dy);
        auto* out = static_cast<T*>(args.out);
        const auto on = static_cast<cudaStream_t>(stream);
        if (dy) {
          swiglu_backward<T, width><<<args.rows, threads, 0, on>>>(gate_up, dy, out, args.columns);
        } else {
          swiglu_forward<T, width><<<args.rows, threads, 0, on>>>(gate_up, out, args.columns);
        }
      },
      args.gate_up, args.dy, args.out);
  check_launch("swiglu");
}

}  // namespace halo
