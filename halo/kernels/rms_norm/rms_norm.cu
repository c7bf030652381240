// Norm and gate of rows on the GPU. Bound by memory: a block holds a row in registers, one pack a
// thread, so each input is read once. In backward a block takes every `gridDim.x`-th row and keeps
// its part of the weight's gradient in registers; partial_sums.cu adds the parts up in order.
#include "halo/kernels/cuda/partial_sums.h"
#include "halo/kernels/cuda/rows.cuh"
#include "halo/kernels/rms_norm/rms_norm_launch.h"

namespace halo {
namespace {

using cuda::load;
using cuda::rounded;
using cuda::store;

template <class T>
struct Rows {
  const T *x, *delta, *w, *gate;
  T *sum, *y;
  int64_t columns;
  float eps;
};

template <class T, int N>
__global__ void __launch_bounds__(cuda::kMostThreads) norm_rows(const Rows<T> rows) {
  __shared__ float scratch[1][32];
  const int64_t c = int64_t{threadIdx.x} * N, at = int64_t{blockIdx.x} * rows.columns + c;
  const bool holds = c < rows.columns;
  float x[N] = {}, w[N], gate[N];
  if (holds) {
    load(rows.x + at, x);
    if (rows.delta) {
      float delta[N];
      load(rows.delta + at, delta);
#pragma unroll
      for (int i = 0; i < N; ++i) x[i] = rounded<T>(x[i] + delta[i]);
      store(x, rows.sum + at);
    }
    if (rows.w) load(rows.w + c, w);
    if (rows.gate) load(rows.gate + at, gate);
  }
  if (rows.w) {
    float squares[1] = {};
#pragma unroll
    for (int i = 0; i < N; ++i) squares[0] += x[i] * x[i];
    cuda::fold_block<cuda::Sum>(squares, scratch);
    const float rstd = 1.0f / sqrtf(squares[0] / static_cast<float>(rows.columns) + rows.eps);
#pragma unroll
    for (int i = 0; i < N; ++i) x[i] = rounded<T>(x[i] * rstd) * w[i];
  }
  if (!holds) return;
  if (rows.gate) {
#pragma unroll
    for (int i = 0; i < N; ++i) x[i] *= cuda::sigmoid<T>(gate[i]);
  }
  store(x, rows.y + at);
}

template <class T>
struct RowsBackward {
  const T *x, *w, *gate, *dy, *direct;
  T *dx, *d_gate;
  float* partial_dw;
  int64_t rows, columns;
  float eps;
};

template <class T, int N>
__global__ void __launch_bounds__(cuda::kMostThreads)
    norm_rows_backward(const RowsBackward<T> rows) {
  __shared__ float scratch[2][2][32];
  const int64_t c = int64_t{threadIdx.x} * N;
  const bool holds = c < rows.columns;
  float w[N], dw[N] = {};
#pragma unroll
  for (int i = 0; i < N; ++i) w[i] = 1.0f;
  if (holds && rows.w) load(rows.w + c, w);
  int turn = 0;
  for (int64_t row = blockIdx.x; row < rows.rows; row += gridDim.x, turn ^= 1) {
    const int64_t at = row * rows.columns + c;
    float x[N] = {}, dy[N] = {};
    if (holds) {
      load(rows.x + at, x);
      load(rows.dy + at, dy);
    }
    float gate_open[N];
    if (rows.gate) {
      float gate[N] = {};
      if (holds) load(rows.gate + at, gate);
#pragma unroll
      for (int i = 0; i < N; ++i) gate_open[i] = cuda::sigmoid<T>(gate[i]);
    } else {
#pragma unroll
      for (int i = 0; i < N; ++i) gate_open[i] = 1.0f;
    }
    float sums[2] = {};  // of x^2, and of x along the weighted gradient
#pragma unroll
    for (int i = 0; i < N; ++i) {
      sums[0] += x[i] * x[i];
      sums[1] += dy[i] * gate_open[i] * w[i] * x[i];
    }
    float rstd = 1.0f, pull = 0.0f;
    if (rows.w) {
      cuda::fold_block<cuda::Sum>(sums, scratch[turn]);
      rstd = 1.0f / sqrtf(sums[0] / static_cast<float>(rows.columns) + rows.eps);
      pull = sums[1] * rstd * rstd / static_cast<float>(rows.columns);
    }
    if (!holds) continue;
    float dx[N], d_gate[N];
    if (rows.direct) {
      load(rows.direct + at, dx);
    } else {
#pragma unroll
      for (int i = 0; i < N; ++i) dx[i] = 0;
    }
#pragma unroll
    for (int i = 0; i < N; ++i) {
      const float passed = dy[i] * gate_open[i], xhat = x[i] * rstd;
      d_gate[i] = passed * w[i] * xhat * (1.0f - gate_open[i]);
      dw[i] += passed * xhat;
      dx[i] += rstd * (passed * w[i] - pull * x[i]);
    }
    store(dx, rows.dx + at);
    if (rows.gate) store(d_gate, rows.d_gate + at);
  }
  if (holds && rows.partial_dw) store(dw, rows.partial_dw + blockIdx.x * rows.columns + c);
}

}  // namespace

void launch_norm_rows(const NormRowsLaunch& args, void* stream) {
  if (args.rows == 0) return;
  cuda::with_width(
      args.element, args.columns,
      [&](auto zero, auto width) {
        using T = decltype(zero);
        const Rows<T> rows{static_cast<const T*>(args.x),
                           static_cast<const T*>(args.delta),
                           static_cast<const T*>(args.w),
                           static_cast<const T*>(args.gate),
                           static_cast<T*>(args.sum),
                           static_cast<T*>(args.y),
                           args.columns,
                           args.eps};
        // More threads than a block may have are refused when they are launched.
        const int64_t threads = cuda::threads_for(args.columns / width);
        norm_rows<T, width><<<args.rows, threads, 0, static_cast<cudaStream_t>(stream)>>>(rows);
      },
      args.x, args.delta, args.w, args.gate, args.sum, args.y);
  check_launch("norm_rows");
}

void launch_norm_rows_backward(const NormRowsBackwardLaunch& args, void* stream) {
  if (args.rows == 0) return;
  cuda::with_width(
      args.element, args.columns,
      [&](auto zero, auto width) {
        using T = decltype(zero);
        const RowsBackward<T> rows{static_cast<const T*>(args.x),
                                   static_cast<const T*>(args.w),
                                   static_cast<const T*>(args.gate),
                                   static_cast<const T*>(args.dy),
                                   static_cast<const T*>(args.direct),
                                   static_cast<T*>(args.dx),
                                   static_cast<T*>(args.d_gate),
                                   args.partial_dw,
                                   args.rows,
                                   args.columns,
                                   args.eps};
        const int64_t threads = cuda::threads_for(args.columns / width);
        norm_rows_backward<T, width>
            <<<partial_blocks(args.rows), threads, 0, static_cast<cudaStream_t>(stream)>>>(rows);
      },
      args.x, args.w, args.gate, args.dy, args.direct, args.dx, args.d_gate, args.partial_dw);
  check_launch("norm_rows_backward");
}

}  // namespace halo
