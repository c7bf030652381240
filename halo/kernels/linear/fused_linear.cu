// Products of a few rows, bound by reading the weights once. A block to a processor owns tiles of
// 16 rows of the weights. One warp has the copy engine bring pieces of them into a ring of stages
// in shared memory, from before the kernel that makes x has ended on; pieces of 2 KB, which it
// brings at the memory's rate, while those of 1 KB come at three quarters of it. Eight warps share
// a stage's columns, make bf16 of them where they are int8, and multiply them on the tensor cores
// with the rows of x as they stand in shared memory, normed and gated: the sum over columns may run
// in any order that both agree on, so that a lane takes 16 bytes at a time of both. They add up
// through shared memory. The order of every sum depends on the weights' shape alone: a row has the
// same bits alone and among others.
#include <algorithm>

#include "halo/kernels/cuda/barrier.cuh"
#include "halo/kernels/cuda/elements.cuh"
#include "halo/kernels/cuda/mma.cuh"
#include "halo/kernels/cuda/overlap.cuh"
#include "halo/kernels/cuda/rows.cuh"
#include "halo/kernels/linear/fused_linear_launch.h"

namespace halo {
namespace {

using Bf16 = __nv_bfloat16;

constexpr int kWarps = 8, kWorkers = 32 * kWarps;  // that multiply
constexpr int kThreads = kWorkers + 32;            // the copying warp is the last one
constexpr int kTile = 16;                          // weight rows
constexpr int kUnit = kFusedInputs;                // columns that a warp multiplies at a time
constexpr int kPieceBytes = 2048;                  // of a weight row in a stage
template <class W>                                 // Bf16 or int8_t
constexpr int kColumns = kPieceBytes / static_cast<int>(sizeof(W));  // of a stage
constexpr int kMostStages = 5;
// Rows of weights and of x lie so that a row's 64 bytes and the next row's are in different banks.
constexpr int kPadBytes = 64;
constexpr int kStageRow = kPieceBytes + kPadBytes;
constexpr int kStageBytes = kTile * kStageRow;
constexpr int kRows = kMostFusedRows;
constexpr int kSharedBytes = 227 << 10;  // that a block may have

struct Parameters {
  FusedLinearLaunch args;
  int64_t tiles;
  int stages;  // of a tile
  int ring;    // stages that shared memory holds
};

__host__ __device__ constexpr int row_bytes(int64_t inputs) {
  return static_cast<int>(inputs * sizeof(Bf16)) + kPadBytes;
}

struct Shared {
  float squares[kRows][kWarps];
  uint64_t full[kMostStages], empty[kMostStages];
};

// Dynamic shared memory: the ring, Shared, x, and twice a tile's sums by warp, [kWarps, rows,
// kTile].
struct Memory {
  unsigned char* ring;
  Shared& shared;
  unsigned char* x;
  float* partial;

  __device__ Memory(unsigned char* memory, const Parameters& p)
      : ring(memory),
        shared(*reinterpret_cast<Shared*>(ring + p.ring * kStageBytes)),
        x(ring + p.ring * kStageBytes + sizeof(Shared)),
        partial(reinterpret_cast<float*>(x + p.args.rows * row_bytes(p.args.inputs))) {}
};

int bytes_beside_ring(const FusedLinearLaunch& a) {
  return static_cast<int>(sizeof(Shared) +
                          a.rows * (row_bytes(a.inputs) + 2 * kWarps * kTile * sizeof(float)));
}

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

// The workers sweep a row of x together; a lane's column. So a sum's order depends on no other row.
constexpr int kSweep = kWorkers * cuda::kWide;  // columns
constexpr int kHeld = 3;                        // pieces that a lane keeps of a single row

__device__ __forceinline__ int column_of(int sweep) {
  return sweep * kSweep + static_cast<int>(threadIdx.x) * cuda::kWide;
}

__device__ __forceinline__ float sum_of_squares(const float (&x)[cuda::kWide]) {
  float sum = 0;
  for (const float value : x) sum += value * value;
  return sum;
}

__device__ __forceinline__ void leave_sum(float sum, float& to) {
  float sums[1] = {sum};
  cuda::fold_lanes<cuda::Sum>(sums);
  if (threadIdx.x % 32 == 0) to = sums[0];
}

__device__ __forceinline__ float rstd_of(const Parameters& p, const float (&sums)[kWarps]) {
  float total = 0;
#pragma unroll
  for (const float sum : sums) total += sum;
  return 1.0f / sqrtf(total / static_cast<float>(p.args.inputs) + p.args.eps);
}

// Of the threads that multiply alone.
__device__ __forceinline__ void sync_workers() {
  asm volatile("bar.sync 1, %0;" ::"n"(kWorkers) : "memory");
}

__device__ __forceinline__ void store_piece(const FusedLinearLaunch& a, float rstd,
                                            float (&x)[cuda::kWide],
                                            const float (&norm)[cuda::kWide],
                                            const float (&gate)[cuda::kWide], unsigned char* to,
                                            int column) {
#pragma unroll
  for (int e = 0; e < cuda::kWide; ++e) {
    if (a.norm) x[e] = cuda::rounded<Bf16>(x[e] * rstd) * norm[e];
    if (a.gate) x[e] *= cuda::sigmoid<Bf16>(gate[e]);
  }
  cuda::store(x, reinterpret_cast<Bf16*>(to) + column);
}

// One row whose pieces the lanes keep: read once, and what no kernel writes, early.
struct SingleRow {
  uint4 norm[kHeld];

  __device__ static bool fits(const FusedLinearLaunch& a) {
    return a.rows == 1 && a.inputs <= kHeld * kSweep;
  }
  __device__ void load_early(const FusedLinearLaunch& a) {
#pragma unroll
    for (int i = 0; i < kHeld; ++i) {
      const int c = column_of(i);
      if (a.norm && c < a.inputs)
        norm[i] = cuda::load_constant(static_cast<const Bf16*>(a.norm) + c);
    }
  }
  __device__ void prepare(const Parameters& p, float (&sums)[kWarps], unsigned char* to) const {
    const FusedLinearLaunch& a = p.args;
    const int warp = threadIdx.x / 32;
    float x[kHeld][cuda::kWide], gate[kHeld][cuda::kWide], rstd = 1;
#pragma unroll
    for (int i = 0; i < kHeld; ++i) {
      const int c = column_of(i);
      if (c >= a.inputs) continue;
      cuda::load(static_cast<const Bf16*>(a.x) + c, x[i]);
      if (a.gate) cuda::load(static_cast<const Bf16*>(a.gate) + c, gate[i]);
    }
    if (a.norm) {
      float sum = 0;
#pragma unroll
      for (int i = 0; i < kHeld; ++i) {
        if (column_of(i) < a.inputs) sum += sum_of_squares(x[i]);
      }
      leave_sum(sum, sums[warp]);
      sync_workers();
      rstd = rstd_of(p, sums);
    }
#pragma unroll
    for (int i = 0; i < kHeld; ++i) {
      const int c = column_of(i);
      if (c >= a.inputs) continue;
      float scales[cuda::kWide];
      cuda::load(reinterpret_cast<const Bf16*>(&norm[i]), scales);
      store_piece(a, rstd, x[i], scales, gate[i], to, c);
    }
  }
};

// Several rows, or long ones.
__device__ void prepare_rows(const Parameters& p, float (&sums)[kRows][kWarps], unsigned char* to) {
  const FusedLinearLaunch& a = p.args;
  const Bf16* x = static_cast<const Bf16*>(a.x);
  float rstd[kRows], norm[cuda::kWide];
  if (a.norm) {
    float squares[kRows] = {};
    for (int c = column_of(0); c < a.inputs; c += kSweep) {
      float pieces[kRows][cuda::kWide];
#pragma unroll
      for (int row = 0; row < kRows; ++row) {
        if (row < a.rows) cuda::load(x + row * a.inputs + c, pieces[row]);
      }
#pragma unroll
      for (int row = 0; row < kRows; ++row) {
        if (row < a.rows) squares[row] += sum_of_squares(pieces[row]);
      }
    }
#pragma unroll
    for (int row = 0; row < kRows; ++row) leave_sum(squares[row], sums[row][threadIdx.x / 32]);
    sync_workers();
#pragma unroll
    for (int row = 0; row < kRows; ++row) rstd[row] = rstd_of(p, sums[row]);
  }
  for (int c = column_of(0); c < a.inputs; c += kSweep) {
    float pieces[kRows][cuda::kWide], gates[kRows][cuda::kWide];
    if (a.norm) cuda::load(static_cast<const Bf16*>(a.norm) + c, norm);
#pragma unroll
    for (int row = 0; row < kRows; ++row) {
      if (row >= a.rows) break;
      cuda::load(x + row * a.inputs + c, pieces[row]);
      if (a.gate)
        cuda::load(static_cast<const Bf16*>(a.gate) + row * a.gate_stride + c, gates[row]);
    }
#pragma unroll
    for (int row = 0; row < kRows; ++row) {
      if (row >= a.rows) break;
      store_piece(a, rstd[row], pieces[row], norm, gates[row], to + row * row_bytes(a.inputs), c);
    }
  }
}

// sums [16 weight rows, 8 rows of x], two of them, += kUnit columns of the weights times x: a lane
// has 16 bytes of them at `w` and kTile / 2 rows below, and x's at `x`, where its row has one.
__device__ __forceinline__ void add_unit(const unsigned char* w, const unsigned char* x, bool has_x,
                                         float (&sums)[2][4], Bf16 /*type*/) {
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    constexpr int kHalf = kUnit / 2 * sizeof(Bf16);
    uint4 b{};
    if (has_x) b = *reinterpret_cast<const uint4*>(x + half * kHalf);
    const uint4 low = *reinterpret_cast<const uint4*>(w + half * kHalf);
    const uint4 high = *reinterpret_cast<const uint4*>(w + kTile / 2 * kStageRow + half * kHalf);
    const uint32_t even[4] = {low.x, high.x, low.y, high.y};
    const uint32_t odd[4] = {low.z, high.z, low.w, high.w};
    cuda::multiply(sums[0], even, b.x, b.y);
    cuda::multiply(sums[1], odd, b.z, b.w);
  }
}

__device__ __forceinline__ void add_unit(const unsigned char* w, const unsigned char* x, bool has_x,
                                         float (&sums)[2][4], int8_t /*type*/) {
  uint4 b[2] = {};
  if (has_x) {
    b[0] = reinterpret_cast<const uint4*>(x)[0];
    b[1] = reinterpret_cast<const uint4*>(x)[1];
  }
  const uint4 lows = *reinterpret_cast<const uint4*>(w);
  const uint4 highs = *reinterpret_cast<const uint4*>(w + kTile / 2 * kStageRow);
  const auto add = [](float(&sum)[4], uint32_t low_bytes, uint32_t high_bytes, uint32_t b0,
                      uint32_t b1) {
    const uint2 low = cuda::widen_int8(low_bytes), high = cuda::widen_int8(high_bytes);
    const uint32_t a[4] = {low.x, high.x, low.y, high.y};
    cuda::multiply(sum, a, b0, b1);
  };
  add(sums[0], lows.x, highs.x, b[0].x, b[0].y);
  add(sums[1], lows.y, highs.y, b[0].z, b[0].w);
  add(sums[0], lows.z, highs.z, b[1].x, b[1].y);
  add(sums[1], lows.w, highs.w, b[1].z, b[1].w);
}

// sums += a warp's columns of a stage times x.
template <class W>
__device__ __forceinline__ void add_products(const Parameters& p, const unsigned char* stage,
                                             const unsigned char* x, int first,
                                             float (&sums)[2][4]) {
  constexpr int kUnits = kColumns<W> / (kWarps * kUnit);  // of a warp
  constexpr int kLaneColumns = 16 / static_cast<int>(sizeof(W));
  const int lane = threadIdx.x % 32, row = lane / 4;
#pragma unroll
  for (int u = 0; u < kUnits; ++u) {
    const int column = (static_cast<int>(threadIdx.x) / 32 * kUnits + u) * kUnit;
    if (first + column >= p.args.inputs) return;
    const int mine = column + lane % 4 * kLaneColumns;
    add_unit(stage + row * kStageRow + mine * sizeof(W),
             x + row * row_bytes(p.args.inputs) + (first + mine) * sizeof(Bf16), row < p.args.rows,
             sums, W{});
  }
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

  __device__ void store(const FusedLinearLaunch& a, const float* partial) const {
    if (row >= a.rows) return;
    float y = scale * total(partial, a.rows, row, column);
    if (kSwiglu) {
      y = y * cuda::sigmoid<float>(y) *
          (up_scale * total(partial, a.rows, row, column + kTile / 2));
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
    float sums[2][4] = {};
    for (int s = 0; s < p.stages; ++s, turn.next(p.ring)) {
      cuda::wait_barrier(cuda::shared_address(&memory.shared.full[turn.stage]), turn.parity);
      add_products<W>(p, memory.ring + turn.stage * kStageBytes, memory.x, s * kColumns<W>, sums);
      __syncwarp();
      if (lane == 0) cuda::arrive(cuda::shared_address(&memory.shared.empty[turn.stage]));
    }
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const int row = lane % 4 * 2 + i % 2;
      if (row < rows)
        partial[(warp * rows + row) * kTile + lane / 4 + i / 2 * 8] = sums[0][i] + sums[1][i];
    }
    sync_workers();
    output.store(p.args, partial);
  }
}

template <bool kSwiglu, class W>
__global__ void __launch_bounds__(kThreads) fused_linear(const __grid_constant__ Parameters p) {
#if __CUDA_ARCH__ >= 900
  extern __shared__ __align__(128) unsigned char dynamic[];
  const Memory memory(dynamic, p);
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
    single.prepare(p, shared.squares[0], memory.x);
  } else {
    cuda::wait_for_inputs();
    cuda::let_next_start();
    prepare_rows(p, shared.squares, memory.x);
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
  parameters.ring = std::min(kMostStages, (kSharedBytes - bytes_beside_ring(a)) / kStageBytes);
  const int bytes = parameters.ring * kStageBytes + bytes_beside_ring(a);
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
