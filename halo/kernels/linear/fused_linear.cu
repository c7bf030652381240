// Products of a few rows, bound by reading the weights once. A block owns tiles of 16 rows of the
// weights; its eight warps share a tile's columns and add up through shared memory. A lane takes 16
// bytes of a weight row at a time, 8 KB a warp in flight, and multiplies them on the tensor cores
// with the rows of x as they stand in shared memory, normed and gated: the sum over columns may run
// in any order that both agree on, so no fragment is rearranged. The first tile's weights are on
// their way before the kernel that makes x has ended. The order of a sum depends on the weights'
// shape alone: a row has the same bits alone and among others.
#include "halo/kernels/cuda/elements.cuh"
#include "halo/kernels/cuda/mma.cuh"
#include "halo/kernels/cuda/overlap.cuh"
#include "halo/kernels/cuda/rows.cuh"
#include "halo/kernels/linear/fused_linear_launch.h"

namespace halo {
namespace {

using Bf16 = __nv_bfloat16;

constexpr int kWarps = 8, kThreads = 32 * kWarps;
constexpr int kBlocksAProcessor = 2;
constexpr int kTile = 16;            // weight rows
constexpr int kUnit = kFusedInputs;  // columns: a line of 128 bytes a weight row
constexpr int kUnits = 4;            // that a warp has in flight
constexpr int kPad = 32;             // elements between rows of x: other banks
constexpr int kRows = kMostFusedRows;

struct Parameters {
  FusedLinearLaunch args;
  int64_t tiles;
  int units;   // of the inputs
  int chunks;  // of kUnits a warp, in a tile
};

__device__ int row_stride(const Parameters& p) {
  return static_cast<int>(p.args.inputs) + kPad;
}

// Warps of the block that take one row of x together: all of them share the rows out evenly.
__device__ __forceinline__ int warps_a_row(int64_t rows) {
  return rows == 1 ? 8 : rows == 2 ? 4 : rows <= 4 ? 2 : 1;
}

constexpr int kPieces = 2;  // of a row that a lane has on their way at a time

// piece(place, column) of the columns of a lane, every `step`-th from `first` on: `load` is called
// for some of them before `use` is for any of those.
template <class Load, class Use>
__device__ __forceinline__ void for_pieces(int first, int step, int64_t end, const Load& load,
                                           const Use& use) {
  for (int c = first; c < end; c += kPieces * step) {
#pragma unroll
    for (int i = 0; i < kPieces; ++i) {
      if (c + i * step < end) load(i, c + i * step);
    }
#pragma unroll
    for (int i = 0; i < kPieces; ++i) {
      if (c + i * step < end) use(i, c + i * step);
    }
  }
}

// x, normed and gated, into shared memory.
__device__ void prepare_rows(const Parameters& p, Bf16* to) {
  __shared__ float sums[kWarps];
  const FusedLinearLaunch& a = p.args;
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32, share = warps_a_row(a.rows);
  const int row = warp / share, first = (warp % share * 32 + lane) * cuda::kWide;
  const int step = share * 32 * cuda::kWide;
  const int64_t end = row < a.rows ? a.inputs : 0;
  const Bf16* x = static_cast<const Bf16*>(a.x) + row * a.inputs;
  const Bf16* gates = static_cast<const Bf16*>(a.gate) + row * a.gate_stride;
  const Bf16* norm = static_cast<const Bf16*>(a.norm);
  float piece[kPieces][cuda::kWide], rstd = 1;
  if (norm) {
    float sum[1] = {};
    for_pieces(
        first, step, end, [&](int i, int c) { cuda::load(x + c, piece[i]); },
        [&](int i, int) {
          for (const float value : piece[i]) sum[0] += value * value;
        });
    cuda::fold_lanes<cuda::Sum>(sum);
    if (lane == 0) sums[warp] = sum[0];
    __syncthreads();
    float total = 0;
    for (int i = 0; i < share; ++i) total += sums[warp / share * share + i];
    rstd = 1.0f / sqrtf(total / static_cast<float>(a.inputs) + a.eps);
  }
  float gate[kPieces][cuda::kWide];
  for_pieces(
      first, step, end,
      [&](int i, int c) {
        cuda::load(x + c, piece[i]);
        if (a.gate) cuda::load(gates + c, gate[i]);
      },
      [&](int i, int c) {
        if (norm) {
          float w[cuda::kWide];
          cuda::load(norm + c, w);
          for (int e = 0; e < cuda::kWide; ++e)
            piece[i][e] = cuda::rounded<Bf16>(piece[i][e] * rstd) * w[e];
        }
        if (a.gate) {
          for (int e = 0; e < cuda::kWide; ++e) piece[i][e] *= cuda::sigmoid<Bf16>(gate[i][e]);
        }
        cuda::store(piece[i], to + row * row_stride(p) + c);
      });
}

// Of rows g and g + 8 of a tile the lane's 16 bytes of both halves of a unit.
struct Weights {
  uint4 low[kUnits][2], high[kUnits][2];
};

// Rows g and g + 8 of a tile; with swiglu the latter are those of the second half of the weights.
template <bool kSwiglu>
__device__ void load_weights(const Parameters& p, int64_t tile, int chunk, Weights& to) {
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  const int64_t low = (kSwiglu ? tile * (kTile / 2) : tile * kTile) + lane / 4;
  const int64_t high = low + (kSwiglu ? p.args.outputs : kTile / 2);
  const Bf16* w = static_cast<const Bf16*>(p.args.w) + lane % 4 * cuda::kWide;
#pragma unroll
  for (int u = 0; u < kUnits; ++u) {
    const int unit = (chunk * kUnits + u) * kWarps + warp;
    if (unit >= p.units) break;
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const int column = unit * kUnit + half * (kUnit / 2);
      to.low[u][half] = cuda::load_constant(w + low * p.args.inputs + column);
      to.high[u][half] = cuda::load_constant(w + high * p.args.inputs + column);
    }
  }
}

// sums [16 weight rows, 8 rows of x] += the weights times x.
__device__ void add_products(const Parameters& p, const Bf16* x, int chunk, const Weights& w,
                             float (&sums)[4]) {
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32, row = lane / 4;
  const Bf16* mine = x + row * row_stride(p) + lane % 4 * cuda::kWide;
#pragma unroll
  for (int u = 0; u < kUnits; ++u) {
    const int unit = (chunk * kUnits + u) * kWarps + warp;
    if (unit >= p.units) break;
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      uint4 b{};
      if (row < p.args.rows)
        b = *reinterpret_cast<const uint4*>(mine + unit * kUnit + half * (kUnit / 2));
      const uint4 low = w.low[u][half], high = w.high[u][half];
      const uint32_t first[4] = {low.x, high.x, low.y, high.y};
      const uint32_t second[4] = {low.z, high.z, low.w, high.w};
      cuda::multiply(sums, first, b.x, b.y);
      cuda::multiply(sums, second, b.z, b.w);
    }
  }
}

using Partial = float[kWarps][kTile][kRows];

__device__ __forceinline__ float total(const Partial& partial, int weight_row, int row) {
  float sum = 0;
#pragma unroll
  for (int warp = 0; warp < kWarps; ++warp) sum += partial[warp][weight_row][row];
  return sum;
}

template <bool kSwiglu>
__device__ void store_tile(const Parameters& p, int64_t tile, const float (&sums)[4],
                           Partial& partial) {
  constexpr int kOutputs = kSwiglu ? kTile / 2 : kTile;
  const FusedLinearLaunch& a = p.args;
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
#pragma unroll
  for (int i = 0; i < 4; ++i) partial[warp][lane / 4 + i / 2 * 8][lane % 4 * 2 + i % 2] = sums[i];
  __syncthreads();
  const int output = threadIdx.x % kOutputs, row = threadIdx.x / kOutputs;
  if (row >= a.rows) return;
  float y = total(partial, output, row);
  if (kSwiglu) y = y * cuda::sigmoid<float>(y) * total(partial, output + kTile / 2, row);
  const int64_t column = tile * kOutputs + output, at = row * a.outputs + column;
  if (a.bias) y += cuda::widen(static_cast<const Bf16*>(a.bias)[column]);
  if (a.residual) y += cuda::widen(static_cast<const Bf16*>(a.residual)[at]);
  if (a.wide) {
    static_cast<float*>(a.y)[at] = y;
  } else {
    static_cast<Bf16*>(a.y)[at] = cuda::narrow<Bf16>(y);
  }
}

template <bool kSwiglu>
__global__ void __launch_bounds__(kThreads, kBlocksAProcessor)
    fused_linear(const __grid_constant__ Parameters p) {
  extern __shared__ __align__(16) unsigned char memory[];
  __shared__ Partial partial[2];
  Bf16* x = reinterpret_cast<Bf16*>(memory);
  Weights weights;
  int64_t tile = blockIdx.x;
  load_weights<kSwiglu>(p, tile, 0, weights);
  cuda::wait_for_inputs();
  cuda::let_next_start();
  prepare_rows(p, x);
  __syncthreads();
  // What stored a tile reads partial sums that the tile after the next overwrites: behind a
  // barrier.
  for (int turn = 0; tile < p.tiles; turn ^= 1) {
    float sums[4] = {};
    const int64_t next = tile + gridDim.x;
    for (int chunk = 0; chunk < p.chunks; ++chunk) {
      add_products(p, x, chunk, weights, sums);
      if (chunk + 1 < p.chunks) {
        load_weights<kSwiglu>(p, tile, chunk + 1, weights);
      } else if (next < p.tiles) {
        load_weights<kSwiglu>(p, next, 0, weights);
      }
    }
    store_tile<kSwiglu>(p, tile, sums, partial[turn]);
    tile = next;
  }
}

template <bool kSwiglu>
void launch(const Parameters& parameters, void* stream) {
  const FusedLinearLaunch& a = parameters.args;
  const auto bytes = static_cast<int>(a.rows * (a.inputs + kPad) * sizeof(Bf16));
  cudaFuncSetAttribute(fused_linear<kSwiglu>, cudaFuncAttributeMaxDynamicSharedMemorySize,
                       static_cast<int>(kMostFusedBytes));
  const int64_t most = int64_t{cuda::processors()} * kBlocksAProcessor;
  const auto blocks = static_cast<unsigned>(parameters.tiles < most ? parameters.tiles : most);
  cuda::launch_overlapped(fused_linear<kSwiglu>, dim3(blocks), kThreads, bytes, stream, parameters);
}

}  // namespace

void launch_fused_linear(const FusedLinearLaunch& args, void* stream) {
  if (args.rows == 0) return;
  Parameters parameters{args, 0, 0, 0};
  parameters.tiles = args.outputs / (args.swiglu ? kTile / 2 : kTile);
  parameters.units = static_cast<int>(args.inputs / kUnit);
  parameters.chunks = (parameters.units + kWarps * kUnits - 1) / (kWarps * kUnits);
  args.swiglu ? launch<true>(parameters, stream) : launch<false>(parameters, stream);
  check_launch("fused_linear");
}

}  // namespace halo
