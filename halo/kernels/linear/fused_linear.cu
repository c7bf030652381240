// Products of a few rows, bound by reading the weights once. A block to a processor owns tiles of
// 16 rows of the weights. One warp has the copy engine bring pieces of them into a ring of stages
// in shared memory, from before the kernel that makes x has ended on; pieces of 2 KB, which it
// brings at the memory's rate, while those of 1 KB come at three quarters of it. Eight warps share
// a stage's columns and multiply them on the tensor cores with the rows of x as they stand in
// shared memory, normed and gated: the sum over columns may run in any order that both agree on, so
// that a lane takes 16 bytes at a time of both. They add up through shared memory. The order of
// every sum depends on the weights' shape alone: a row has the same bits alone and among others.
// Weights in int8 are multiplied as they are. A row of x has 16 bits a number then, as two int8:
// the high parts of four rows and their low ones are a product's eight columns, its sums of
// integers exact. The largest of n numbers is at most sqrt(n) times their rms, so what rounding to
// 2^-16 of it loses is less than bf16 would lose.
#include <algorithm>

#include "halo/kernels/cuda/barrier.cuh"
#include "halo/kernels/cuda/elements.cuh"
#include "halo/kernels/cuda/mma.cuh"
#include "halo/kernels/cuda/overlap.cuh"
#include "halo/kernels/cuda/rows.cuh"
#include "halo/kernels/linear/fused_rows.cuh"

namespace halo {
namespace {

using namespace fused;

// Where a warp stands in the ring.
struct Turn {
  int stage = 0;
  uint32_t parity = 0;

  __device__ void next(int ring) {
    if (++stage == ring) {
      stage = 0;
      parity ^= 1;
    }
  }
};

// Rows of a tile; with swiglu the latter half are those of the second half of the weights.
template <bool kSwiglu>
__device__ __forceinline__ int64_t weight_row(const Parameters& p, int64_t tile, int row) {
  if (!kSwiglu) return tile * kTile + row;
  return row < kTile / 2 ? tile * (kTile / 2) + row
                         : p.args.outputs + tile * (kTile / 2) + row - kTile / 2;
}

// The copying warp: a lane for each row of a tile.
template <bool kSwiglu, class W>
__device__ void copy_tiles(const Parameters& p, const Memory& memory) {
  const int lane = threadIdx.x % 32;
  Turn turn;
  for (int64_t tile = blockIdx.x; tile < p.tiles; tile += gridDim.x) {
    const W* row = static_cast<const W*>(p.args.w) +
                   weight_row<kSwiglu>(p, tile, lane % kTile) * p.args.inputs;
    for (int s = 0; s < p.stages; ++s, turn.next(p.ring)) {
      const int first = s * kColumns<W>;
      const int bytes = min(kColumns<W>, static_cast<int>(p.args.inputs) - first) * sizeof(W);
      const uint32_t full = cuda::shared_address(&memory.shared.full[turn.stage]);
      cuda::wait_barrier(cuda::shared_address(&memory.shared.empty[turn.stage]), turn.parity ^ 1);
      if (lane == 0) cuda::expect_bytes(full, kTile * bytes);
      __syncwarp();
      if (lane < kTile) {
        cuda::copy_bytes(
            cuda::shared_address(memory.ring + turn.stage * kStageBytes + lane * kStageRow),
            row + first, bytes, full);
      }
    }
  }
}

// A warp's sums of a tile [16 weight rows, 8 columns], two of them that are added at the end. A
// column is a row of x; of int8 four are high parts of rows and four low ones.
template <class W>
struct Sums {
  float of[2][4] = {};
};
template <>
struct Sums<int8_t> {
  int of[2][4] = {};
};

// += kUnit columns of the weights times x: a lane has 16 bytes of them at `w` and kTile / 2 rows
// below, and x's at `x`, where its column has one.
__device__ __forceinline__ void add_unit(const unsigned char* w, const unsigned char* x, bool has_x,
                                         Sums<Bf16>& sums) {
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    constexpr int kHalf = kUnit / 2 * sizeof(Bf16);
    uint4 b{};
    if (has_x) b = *reinterpret_cast<const uint4*>(x + half * kHalf);
    const uint4 low = *reinterpret_cast<const uint4*>(w + half * kHalf);
    const uint4 high = *reinterpret_cast<const uint4*>(w + kTile / 2 * kStageRow + half * kHalf);
    const uint32_t even[4] = {low.x, high.x, low.y, high.y};
    const uint32_t odd[4] = {low.z, high.z, low.w, high.w};
    cuda::multiply(sums.of[0], even, b.x, b.y);
    cuda::multiply(sums.of[1], odd, b.z, b.w);
  }
}

__device__ __forceinline__ void add_unit(const unsigned char* w, const unsigned char* x, bool has_x,
                                         Sums<int8_t>& sums) {
  uint4 b{};
  if (has_x) b = *reinterpret_cast<const uint4*>(x);
  const uint4 low = *reinterpret_cast<const uint4*>(w);
  const uint4 high = *reinterpret_cast<const uint4*>(w + kTile / 2 * kStageRow);
  const uint32_t even[4] = {low.x, high.x, low.y, high.y};
  const uint32_t odd[4] = {low.z, high.z, low.w, high.w};
  cuda::multiply_int8(sums.of[0], even, b.x, b.y);
  cuda::multiply_int8(sums.of[1], odd, b.z, b.w);
}

// sums += a warp's columns of a stage times x.
template <class W>
__device__ __forceinline__ void add_products(const Parameters& p, const unsigned char* stage,
                                             const unsigned char* x, int first, Sums<W>& sums) {
  constexpr int kUnits = kColumns<W> / (kWarps * kUnit);  // of a warp
  constexpr int kLaneColumns = 16 / static_cast<int>(sizeof(W));
  const int lane = threadIdx.x % 32, row = lane / 4;
  const int row_of_x = kIsInt8<W> ? row % kRows : row;
  const int place = row_of_x + (row == row_of_x ? 0 : static_cast<int>(p.args.rows));
#pragma unroll
  for (int u = 0; u < kUnits; ++u) {
    const int column = (static_cast<int>(threadIdx.x) / 32 * kUnits + u) * kUnit;
    if (first + column >= p.args.inputs) return;
    const int mine = column + lane % 4 * kLaneColumns;
    add_unit(stage + row * kStageRow + mine * sizeof(W),
             x + place * row_bytes<W>(p.args.inputs) + (first + mine) * sizeof(W),
             row_of_x < p.args.rows, sums);
  }
}

// Sum i of a lane; of int8 lanes of rows of x alone have it, a row's factor still to come.
__device__ __forceinline__ float value_of(const Sums<Bf16>& sums, int i) {
  return sums.of[0][i] + sums.of[1][i];
}
__device__ __forceinline__ float value_of(const Sums<int8_t>& sums, int i) {
  // |sum| <= 127^2 times the inputs, which are fewer than 2^31 / 127^2.
  const float part = __int2float_rn(sums.of[0][i] + sums.of[1][i]);
  return 256 * part + __shfl_xor_sync(~0u, part, 2);
}

__device__ __forceinline__ float total(const float* partial, int64_t rows, int row,
                                       int weight_row) {
  float sum = 0;
#pragma unroll
  for (int warp = 0; warp < kWarps; ++warp)
    sum += partial[(warp * rows + row) * kTile + weight_row];
  return sum;
}

// The element of y that a thread makes of a tile.
template <bool kSwiglu>
struct Output {
  static constexpr int kOutputs = kSwiglu ? kTile / 2 : kTile;
  const int column = threadIdx.x % kOutputs, row = threadIdx.x / kOutputs;
  int64_t at = 0;                 // in y
  float added = 0;                // bias and residual
  float scale = 1, up_scale = 1;  // of the weight's rows

  __device__ Output(const FusedLinearLaunch& a, int64_t tile) {
    if (row >= a.rows) return;
    const int64_t output = tile * kOutputs + column;
    at = row * a.outputs + output;
    if (a.scale) scale = a.scale[output];
    if (kSwiglu && a.scale) up_scale = a.scale[a.outputs + output];
    if (a.bias) added += cuda::widen(static_cast<const Bf16*>(a.bias)[output]);
    if (a.residual) added += cuda::widen(static_cast<const Bf16*>(a.residual)[at]);
  }

  // `factor`: of the row's sums.
  __device__ void store(const FusedLinearLaunch& a, const float* partial, float factor) const {
    if (row >= a.rows) return;
    float y = scale * factor * total(partial, a.rows, row, column);
    if (kSwiglu) {
      y = y * cuda::sigmoid<float>(y) *
          (up_scale * factor * total(partial, a.rows, row, column + kTile / 2));
    }
    y += added;
    if (a.wide) {
      static_cast<float*>(a.y)[at] = y;
    } else {
      static_cast<Bf16*>(a.y)[at] = cuda::narrow<Bf16>(y);
    }
  }
};

template <bool kSwiglu, class W>
__device__ void multiply_tiles(const Parameters& p, const Memory& memory) {
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  const int64_t rows = p.args.rows;
  Turn turn;
  // What stored a tile reads partial sums that the tile after the next overwrites: behind a
  // barrier.
  int which = 0;
  for (int64_t tile = blockIdx.x; tile < p.tiles; tile += gridDim.x, which ^= 1) {
    float* partial = memory.partial + which * kWarps * rows * kTile;
    const Output<kSwiglu> output(p.args, tile);
    Sums<W> sums;
    for (int s = 0; s < p.stages; ++s, turn.next(p.ring)) {
      cuda::wait_barrier(cuda::shared_address(&memory.shared.full[turn.stage]), turn.parity);
      add_products<W>(p, memory.ring + turn.stage * kStageBytes, memory.x, s * kColumns<W>, sums);
      __syncwarp();
      if (lane == 0) cuda::arrive(cuda::shared_address(&memory.shared.empty[turn.stage]));
    }
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const int row = lane % 4 * 2 + i % 2;
      const float sum = value_of(sums, i);
      if (row < rows) partial[(warp * rows + row) * kTile + lane / 4 + i / 2 * 8] = sum;
    }
    sync_workers();
    output.store(p.args, partial,
                 kIsInt8<W> && output.row < rows ? memory.shared.factor[output.row] : 1);
  }
}

template <bool kSwiglu, class W>
__global__ void __launch_bounds__(kThreads) fused_linear(const __grid_constant__ Parameters p) {
#if __CUDA_ARCH__ >= 900
  extern __shared__ __align__(128) unsigned char dynamic[];
  const Memory memory(dynamic, p, x_bytes<W>(p.args));
  Shared& shared = memory.shared;
  if (threadIdx.x == 0) {
    for (int i = 0; i < p.ring; ++i) {
      cuda::init_barrier(cuda::shared_address(&shared.full[i]), 1);
      cuda::init_barrier(cuda::shared_address(&shared.empty[i]), kWarps);
    }
    cuda::publish_barriers();
  }
  __syncthreads();
  if (threadIdx.x >= kWorkers) {
    copy_tiles<kSwiglu, W>(p, memory);
    return;
  }
  if (SingleRow::fits(p.args)) {
    SingleRow single;
    single.load_early(p.args);
    cuda::wait_for_inputs();
    cuda::let_next_start();
    single.prepare<W>(p, memory);
  } else if (HeldRows::fits(p.args)) {
    HeldRows held;
    held.load_early(p.args);
    cuda::wait_for_inputs();
    cuda::let_next_start();
    held.prepare<W>(p, memory);
  } else {
    cuda::wait_for_inputs();
    cuda::let_next_start();
    prepare_rows<W>(p, memory);
  }
  sync_workers();
  multiply_tiles<kSwiglu, W>(p, memory);
#endif
}

template <bool kSwiglu, class W>
void launch(const FusedLinearLaunch& a, void* stream) {
  Parameters parameters{a, 0, 0, 0};
  parameters.tiles = a.outputs / (kSwiglu ? kTile / 2 : kTile);
  parameters.stages = static_cast<int>((a.inputs + kColumns<W> - 1) / kColumns<W>);
  parameters.ring = std::min(kMostStages, (kSharedBytes - bytes_beside_ring<W>(a)) / kStageBytes);
  const int bytes = parameters.ring * kStageBytes + bytes_beside_ring<W>(a);
  const auto kernel = fused_linear<kSwiglu, W>;
  cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, bytes);
  const auto blocks =
      static_cast<unsigned>(std::min<int64_t>(parameters.tiles, cuda::processors()));
  cuda::launch_overlapped(kernel, dim3(blocks), kThreads, bytes, stream, parameters);
}

}  // namespace

void launch_fused_linear(const FusedLinearLaunch& args, void* stream) {
  if (args.rows == 0) return;
  if (args.scale) {
    args.swiglu ? launch<true, int8_t>(args, stream) : launch<false, int8_t>(args, stream);
  } else {
    args.swiglu ? launch<true, Bf16>(args, stream) : launch<false, Bf16>(args, stream);
  }
  check_launch("fused_linear");
}

}  // namespace halo
