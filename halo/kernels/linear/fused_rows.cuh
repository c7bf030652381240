// What a block of fused_linear has in shared memory, and the rows of x that it makes ready there:
// normed and gated, in bf16 or in 16 bits. Device code.
#pragma once

#include "halo/kernels/cuda/elements.cuh"
#include "halo/kernels/cuda/mma.cuh"
#include "halo/kernels/cuda/overlap.cuh"
#include "halo/kernels/cuda/rows.cuh"
#include "halo/kernels/linear/fused_linear_launch.h"

namespace halo::fused {

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

template <class W>
constexpr bool kIsInt8 = sizeof(W) == 1;
// From a row of x to the next; where weights are int8, of its high parts or of its low ones.
template <class W>
__host__ __device__ constexpr int row_bytes(int64_t inputs) {
  return static_cast<int>((inputs * sizeof(W) + 127) / 128 * 128) + kPadBytes;
}
// Of x's rows: with int8 all high parts, then all low ones.
template <class W>
__host__ __device__ constexpr int x_bytes(const FusedLinearLaunch& a) {
  return static_cast<int>(a.rows) * row_bytes<W>(a.inputs) * (kIsInt8<W> ? 2 : 1);
}

struct Shared {
  float squares[kRows][kWarps];
  float most[kRows][kWarps];  // the largest of a row's numbers in size
  float factor[kRows];        // of the 16 bits that a row became
  uint64_t full[kMostStages], empty[kMostStages];
};

// Dynamic shared memory: the ring, Shared, x, and twice a tile's sums by warp, [kWarps, rows,
// kTile].
struct Memory {
  unsigned char* ring;
  Shared& shared;
  unsigned char* x;
  float* partial;

  __device__ Memory(unsigned char* memory, const Parameters& p, int bytes_of_x)
      : ring(memory),
        shared(*reinterpret_cast<Shared*>(ring + p.ring * kStageBytes)),
        x(ring + p.ring * kStageBytes + sizeof(Shared)),
        partial(reinterpret_cast<float*>(x + bytes_of_x)) {}
};

template <class W>
int bytes_beside_ring(const FusedLinearLaunch& a) {
  return static_cast<int>(sizeof(Shared) + x_bytes<W>(a) +
                          a.rows * 2 * kWarps * kTile * sizeof(float));
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

template <class Fold>
__device__ __forceinline__ void leave(float mine, float& to) {
  float all[1] = {mine};
  cuda::fold_lanes<Fold>(all);
  if (threadIdx.x % 32 == 0) to = all[0];
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

// What a piece of x is multiplied with before it is rounded: of bf16 the norm's factor, which comes
// first; of 16 bits what makes the row's largest number kMost16, while all else is left for the
// end.
template <class W>
__device__ __forceinline__ float multiplier(const Parameters& p, Shared& shared, int row) {
  const float rstd = p.args.norm ? rstd_of(p, shared.squares[row]) : 1;
  if constexpr (!kIsInt8<W>) return rstd;
  float most = 0;
#pragma unroll
  for (const float one : shared.most[row]) most = cuda::Largest::of(most, one);
  if (threadIdx.x == 0) shared.factor[row] = most * (1 / cuda::kMost16) * rstd;
  return most > 0 ? cuda::kMost16 / most : 0;
}

// x normed and gated, with int8 but for the norm's factor.
template <class W>
__device__ __forceinline__ void shape(const FusedLinearLaunch& a, float by, float (&x)[cuda::kWide],
                                      const float (&norm)[cuda::kWide],
                                      const float (&gate)[cuda::kWide]) {
#pragma unroll
  for (int e = 0; e < cuda::kWide; ++e) {
    if (a.norm) x[e] = (kIsInt8<W> ? x[e] : cuda::rounded<Bf16>(x[e] * by)) * norm[e];
    if (a.gate) x[e] *= cuda::sigmoid<Bf16>(gate[e]);
  }
}

__device__ __forceinline__ float most_of(const float (&x)[cuda::kWide]) {
  float most = 0;
#pragma unroll
  for (const float value : x) most = cuda::Largest::of(most, fabsf(value));
  return most;
}

template <class W>
__device__ __forceinline__ void store_piece(const FusedLinearLaunch& a, float by,
                                            const float (&x)[cuda::kWide], unsigned char* rows,
                                            int row, int column) {
  unsigned char* to = rows + row * row_bytes<W>(a.inputs) + column * sizeof(W);
  if constexpr (kIsInt8<W>) {
    uint2 high, low;
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      int rounded[4];
#pragma unroll
      for (int e = 0; e < 4; ++e) rounded[e] = __float2int_rn(x[4 * half + e] * by);
      const cuda::HighLow parts = cuda::split16(rounded);
      (half ? high.y : high.x) = parts.high;
      (half ? low.y : low.x) = parts.low;
    }
    *reinterpret_cast<uint2*>(to) = high;
    *reinterpret_cast<uint2*>(to + a.rows * row_bytes<W>(a.inputs)) = low;
  } else {
    cuda::store(x, reinterpret_cast<Bf16*>(to));
  }
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
  template <class W>
  __device__ void prepare(const Parameters& p, const Memory& memory) const {
    const FusedLinearLaunch& a = p.args;
    const int warp = threadIdx.x / 32;
    float x[kHeld][cuda::kWide], gate[kHeld][cuda::kWide];
#pragma unroll
    for (int i = 0; i < kHeld; ++i) {
      const int c = column_of(i);
      if (c >= a.inputs) continue;
      cuda::load(static_cast<const Bf16*>(a.x) + c, x[i]);
      if (a.gate) cuda::load(static_cast<const Bf16*>(a.gate) + c, gate[i]);
    }
    const auto shape_piece = [&](int i, float by) {
      float scales[cuda::kWide];
      cuda::load(reinterpret_cast<const Bf16*>(&norm[i]), scales);
      shape<W>(a, by, x[i], scales, gate[i]);
    };
    float sum = 0, most = 0;
#pragma unroll
    for (int i = 0; i < kHeld; ++i) {
      if (column_of(i) >= a.inputs) continue;
      if (a.norm) sum += sum_of_squares(x[i]);
      if constexpr (kIsInt8<W>) {
        shape_piece(i, 1);
        most = cuda::Largest::of(most, most_of(x[i]));
      }
    }
    if (a.norm) leave<cuda::Sum>(sum, memory.shared.squares[0][warp]);
    if (kIsInt8<W>) leave<cuda::Largest>(most, memory.shared.most[0][warp]);
    if (a.norm || kIsInt8<W>) sync_workers();
    const float by = multiplier<W>(p, memory.shared, 0);
#pragma unroll
    for (int i = 0; i < kHeld; ++i) {
      if (column_of(i) >= a.inputs) continue;
      if constexpr (!kIsInt8<W>) shape_piece(i, by);
      store_piece<W>(a, by, x[i], memory.x, 0, column_of(i));
    }
  }
};

__device__ __forceinline__ void unpack(const uint4& from, float (&to)[cuda::kWide]) {
  cuda::load(reinterpret_cast<const Bf16*>(&from), to);
}

// Several rows whose pieces the lanes keep.
struct HeldRows {
  uint4 norm[kHeld];

  __device__ static bool fits(const FusedLinearLaunch& a) {
    return a.inputs <= kHeld * kSweep && (!a.gate || a.inputs <= kSweep);
  }
  __device__ void load_early(const FusedLinearLaunch& a) {
#pragma unroll
    for (int i = 0; i < kHeld; ++i) {
      const int c = column_of(i);
      if (a.norm && c < a.inputs)
        norm[i] = cuda::load_constant(static_cast<const Bf16*>(a.norm) + c);
    }
  }
  template <class W>
  __device__ void prepare(const Parameters& p, const Memory& memory) const {
    const FusedLinearLaunch& a = p.args;
    const Bf16 *x = static_cast<const Bf16*>(a.x), *gate = static_cast<const Bf16*>(a.gate);
    const int warp = threadIdx.x / 32;
    uint4 held[kRows][kHeld], gates[kRows];  // a gate has one piece
#pragma unroll
    for (int row = 0; row < kRows; ++row) {
#pragma unroll
      for (int i = 0; i < kHeld; ++i) {
        const int c = column_of(i);
        if (row < a.rows && c < a.inputs)
          held[row][i] = *reinterpret_cast<const uint4*>(x + row * a.inputs + c);
      }
      if (gate && row < a.rows && column_of(0) < a.inputs)
        gates[row] = *reinterpret_cast<const uint4*>(gate + row * a.gate_stride + column_of(0));
    }
    const auto piece_of = [&](int row, int i, float by, float(&piece)[cuda::kWide]) {
      float scales[cuda::kWide], opening[cuda::kWide];
      unpack(held[row][i], piece);
      unpack(norm[i], scales);
      unpack(gates[row], opening);
      shape<W>(a, by, piece, scales, opening);
    };
    if (a.norm || kIsInt8<W>) {
#pragma unroll
      for (int row = 0; row < kRows; ++row) {
        float sum = 0, most = 0;
#pragma unroll
        for (int i = 0; i < kHeld; ++i) {
          if (row >= a.rows || column_of(i) >= a.inputs) continue;
          float piece[cuda::kWide];
          unpack(held[row][i], piece);
          sum += sum_of_squares(piece);
          if constexpr (kIsInt8<W>) {
            piece_of(row, i, 1, piece);
            most = cuda::Largest::of(most, most_of(piece));
          }
        }
        if (a.norm) leave<cuda::Sum>(sum, memory.shared.squares[row][warp]);
        if (kIsInt8<W>) leave<cuda::Largest>(most, memory.shared.most[row][warp]);
      }
      sync_workers();
    }
#pragma unroll
    for (int row = 0; row < kRows; ++row) {
      const float by = multiplier<W>(p, memory.shared, row);
#pragma unroll
      for (int i = 0; i < kHeld; ++i) {
        if (row >= a.rows || column_of(i) >= a.inputs) continue;
        float piece[cuda::kWide];
        piece_of(row, i, by, piece);
        store_piece<W>(a, by, piece, memory.x, row, column_of(i));
      }
    }
  }
};

// Long rows.
template <class W>
__device__ void prepare_rows(const Parameters& p, const Memory& memory) {
  const FusedLinearLaunch& a = p.args;
  const Bf16* x = static_cast<const Bf16*>(a.x);
  // The lane's pieces of all rows, shaped where they are to be.
  const auto load_pieces = [&](int c, bool shaped, const float(&by)[kRows],
                               float(&pieces)[kRows][cuda::kWide]) {
    float norm[cuda::kWide], gates[kRows][cuda::kWide];
    if (a.norm && shaped) cuda::load(static_cast<const Bf16*>(a.norm) + c, norm);
#pragma unroll
    for (int row = 0; row < kRows; ++row) {
      if (row >= a.rows) break;
      cuda::load(x + row * a.inputs + c, pieces[row]);
      if (a.gate && shaped)
        cuda::load(static_cast<const Bf16*>(a.gate) + row * a.gate_stride + c, gates[row]);
    }
    if (!shaped) return;
#pragma unroll
    for (int row = 0; row < kRows; ++row) {
      if (row >= a.rows) break;
      shape<W>(a, by[row], pieces[row], norm, gates[row]);
    }
  };
  float by[kRows] = {1, 1, 1, 1}, pieces[kRows][cuda::kWide];
  if (a.norm) {
    float squares[kRows] = {};
    for (int c = column_of(0); c < a.inputs; c += kSweep) {
      load_pieces(c, false, by, pieces);
#pragma unroll
      for (int row = 0; row < kRows; ++row) {
        if (row < a.rows) squares[row] += sum_of_squares(pieces[row]);
      }
    }
#pragma unroll
    for (int row = 0; row < kRows; ++row)
      leave<cuda::Sum>(squares[row], memory.shared.squares[row][threadIdx.x / 32]);
  }
  if constexpr (kIsInt8<W>) {
    float most[kRows] = {};
    for (int c = column_of(0); c < a.inputs; c += kSweep) {
      load_pieces(c, true, by, pieces);
#pragma unroll
      for (int row = 0; row < kRows; ++row) {
        if (row < a.rows) most[row] = cuda::Largest::of(most[row], most_of(pieces[row]));
      }
    }
#pragma unroll
    for (int row = 0; row < kRows; ++row)
      leave<cuda::Largest>(most[row], memory.shared.most[row][threadIdx.x / 32]);
  }
  if (a.norm || kIsInt8<W>) sync_workers();
#pragma unroll
  for (int row = 0; row < kRows; ++row) by[row] = multiplier<W>(p, memory.shared, row);
  for (int c = column_of(0); c < a.inputs; c += kSweep) {
    load_pieces(c, true, by, pieces);
#pragma unroll
    for (int row = 0; row < kRows; ++row) {
      if (row < a.rows) store_piece<W>(a, by[row], pieces[row], memory.x, row, c);
    }
  }
}

}  // namespace halo::fused
