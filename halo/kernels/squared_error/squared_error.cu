// Difference, gradient and sum of squares in one pass. Bound by memory.
#include <algorithm>

#include "halo/kernels/cuda/rows.cuh"
#include "halo/kernels/squared_error/squared_error_launch.h"

namespace halo {
namespace {

constexpr int kThreads = 256;

template <class T, int N>
__global__ void __launch_bounds__(kThreads)
    squared_error(const T* __restrict__ y, const T* __restrict__ target,
                  const float* __restrict__ scale, T* __restrict__ gradient, int64_t count,
                  float* __restrict__ partial) {
  __shared__ float scratch[1][32];
  const float by = *scale;
  const int64_t begin = int64_t{blockIdx.x} * kSquaredErrorBlock;
  const int64_t end = min(begin + kSquaredErrorBlock, count);
  float squares[1] = {};
#pragma unroll 4
  for (int64_t at = begin + int64_t{threadIdx.x} * N; at < end; at += kThreads * N) {
    float a[N], b[N];
    cuda::load(y + at, a);
    cuda::load(target + at, b);
#pragma unroll
    for (int i = 0; i < N; ++i) {
      a[i] -= b[i];
      squares[0] += a[i] * a[i];
      a[i] *= by;
    }
    cuda::store(a, gradient + at);
  }
  cuda::fold_block<cuda::Sum>(squares, scratch);
  if (threadIdx.x == 0) partial[blockIdx.x] = squares[0];
}

}  // namespace

void launch_squared_error(const SquaredErrorLaunch& args, void* stream) {
  if (args.count == 0) return;
  cuda::with_width(
      args.element, args.count,
      [&](auto zero, auto width) {
        using T = decltype(zero);
        squared_error<T, width>
            <<<squared_error_blocks(args.count), kThreads, 0, static_cast<cudaStream_t>(stream)>>>(
                static_cast<const T*>(args.y), static_cast<const T*>(args.target), args.scale,
                static_cast<T*>(args.gradient), args.count, args.partial);
      },
      args.y, args.target, args.gradient);
  check_launch("squared_error");
}

}  // namespace halo
