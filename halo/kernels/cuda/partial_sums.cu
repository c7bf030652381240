// A tile of 32 columns a block: 32 threads a column sum every 32nd part, then the 32 are added up.
#include <cuda_runtime_api.h>

#include "halo/kernels/cuda/partial_sums.h"

namespace halo {
namespace {

constexpr int kTile = 32;

__global__ void add_partial_sums(const float* __restrict__ partial, int64_t blocks, int64_t columns,
                                 float* __restrict__ target) {
  __shared__ float sums[kTile][kTile];
  const int64_t column = int64_t{blockIdx.x} * kTile + threadIdx.x;
  float sum = 0;
  if (column < columns) {
#pragma unroll 4
    for (int64_t b = threadIdx.y; b < blocks; b += kTile) sum += partial[b * columns + column];
  }
  sums[threadIdx.y][threadIdx.x] = sum;
  __syncthreads();
  if (threadIdx.y != 0 || column >= columns) return;
  float total = 0;
#pragma unroll
  for (int part = 0; part < kTile; ++part) total += sums[part][threadIdx.x];
  target[column] += total;
}

}  // namespace

void launch_add_partial_sums(const float* partial, int64_t blocks, int64_t columns, float* target,
                             void* stream) {
  if (blocks == 0 || columns == 0) return;
  const int64_t tiles = (columns + kTile - 1) / kTile;
  add_partial_sums<<<tiles, dim3(kTile, kTile), 0, static_cast<cudaStream_t>(stream)>>>(
      partial, blocks, columns, target);
  check_launch("partial_sums");
}

}  // namespace halo
