// Position-dependent factors on the GPU, a thread each, in fp64.
#include <cmath>

#include "halo/kernels/cuda/overlap.cuh"
#include "halo/kernels/rope/rope_tables_launch.h"

namespace halo {
namespace {

constexpr int kThreads = 128;

struct Tables {
  const int64_t* positions;
  int64_t count;
  const double* inv_freq;
  int64_t pairs;
  float *cos, *sin;
};

__global__ void rope_tables(const Tables p) {
  cuda::wait_for_inputs();
  cuda::let_next_start();
  const int64_t i = int64_t{blockIdx.x} * kThreads + threadIdx.x;
  if (i >= p.count * p.pairs) return;
  double sin, cos;
  sincos(static_cast<double>(p.positions[i / p.pairs]) * p.inv_freq[i % p.pairs], &sin, &cos);
  p.cos[i] = static_cast<float>(cos);
  p.sin[i] = static_cast<float>(sin);
}

struct Scales {
  const int64_t* positions;
  int64_t count;
  double a;
  float* scale;
};

__global__ void log_position_scale(const Scales p) {
  cuda::wait_for_inputs();
  cuda::let_next_start();
  const int64_t i = int64_t{blockIdx.x} * kThreads + threadIdx.x;
  if (i >= p.count) return;
  p.scale[i] = static_cast<float>(log(static_cast<double>(p.positions[i]) + p.a) / log(p.a));
}

dim3 blocks_of(int64_t threads) {
  return dim3(static_cast<unsigned>((threads + kThreads - 1) / kThreads));
}

}  // namespace

void launch_rope_tables(const int64_t* positions, int64_t count, const double* inv_freq,
                        int64_t pairs, float* cos, float* sin, void* stream) {
  if (count == 0) return;
  const Tables tables{positions, count, inv_freq, pairs, cos, sin};
  cuda::launch_overlapped(rope_tables, blocks_of(count * pairs), kThreads, 0, stream, tables);
  check_launch("rope_tables");
}

void launch_log_position_scale(const int64_t* positions, int64_t count, double a, float* scale,
                               void* stream) {
  if (count == 0) return;
  const Scales scales{positions, count, a, scale};
  cuda::launch_overlapped(log_position_scale, blocks_of(count), kThreads, 0, stream, scales);
  check_launch("log_position_scale");
}

}  // namespace halo
