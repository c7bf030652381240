// What the CUDA forms of lightning attention share: the launch's parameters, the walk over chunks,
// and the arithmetic of one chunk (docs/math/lightning.md, section 4).
#pragma once

#include <cuda_bf16.h>
#include <cuda_runtime.h>

#include <cstdint>

#include "halo/kernels/cuda/barrier.cuh"
#include "halo/kernels/lightning/lightning_launch.h"

namespace halo::lightning {

constexpr int kChunk = 64;     // tokens
constexpr int kMaxHeads = 64;  // of one launch; more heads are several launches
constexpr int kMaxPasses = 2;  // of one launch

// What has decayed below 2^-bits counts as forgotten. bf16 products keep 8 bits, fp32 sums 24.
constexpr int kStateBits = 24, kExactStateBits = 32;

struct HeadPlan {
  double slope;
  int32_t first_item;  // items of the launch are numbered head by head
  int32_t segment, warmup;
};

// A launch's parameters but for the passes themselves.
struct LaunchPlan {
  HeadPlan heads[kMaxHeads];
  const int32_t* offsets;
  int32_t tokens, sequences;
  int32_t num_heads, first_head;  // of this launch; all_heads is the tensors' H
  int32_t all_heads;
  float scale;
};

// A launch's parameters; `Pass` is what a form knows of a pass.
template <class Pass>
struct LaunchParameters {
  LaunchPlan plan;
  int num_passes;
  Pass passes[kMaxPasses];
};

// Host side: cuts `shape` for blocks of which `slots` run at once; returns the number of items.
int32_t fill_plan(LaunchPlan& plan, const LightningShape& shape,
                  const std::vector<HeadSegments>& segments, int64_t first_head);

// Host side: launch.operator()<head size, reverse>() with those of `shape`.
template <class Launch>
void with_shape(const LightningShape& shape, const Launch& launch) {
  if (shape.head_size == 64) {
    shape.reverse ? launch.template operator()<64, true>()
                  : launch.template operator()<64, false>();
  } else {
    shape.reverse ? launch.template operator()<128, true>()
                  : launch.template operator()<128, false>();
  }
}

void launch_wgmma(std::span<const LightningPass> passes, const LightningShape& shape,
                  int processors, cudaStream_t stream);
void launch_mma(std::span<const LightningPass> passes, const LightningShape& shape, int processors,
                cudaStream_t stream);
void launch_recurrent(std::span<const LightningPass> passes, const LightningShape& shape,
                      int processors, cudaStream_t stream);

struct Item {
  int head;  // of the launch
  int begin, end;
};

__device__ inline Item find_item(const LaunchPlan& plan, int index) {
  int head = 0;
  while (head + 1 < plan.num_heads && plan.heads[head + 1].first_item <= index) ++head;
  const HeadPlan& of = plan.heads[head];
  const int begin = (index - of.first_item) * of.segment;
  return {head, begin, min(plan.tokens, begin + of.segment)};
}

// The chunks of an item in the order of the pass: first the warm-up's, then the segment's. A chunk
// is up to 64 tokens of one sequence.
template <bool kReverse>
class ChunkWalk {
 public:
  int first = 0, count = 0;  // tokens first .. first+count-1
  int sequence = 0;
  bool opens = false;   // holds the sequence's first token (in reverse, its last one)
  bool closes = false;  // holds its last one
  bool warmup = false;  // before the segment: only its state counts

  __device__ ChunkWalk(const LaunchPlan& plan, const Item& item)
      : offsets_(plan.offsets), begin_(item.begin), end_(item.end) {
    const int token = kReverse ? end_ - 1 : begin_;
    int low = 0, high = plan.sequences;  // the last s with offsets[s] <= token
    while (high - low > 1) {
      const int middle = (low + high) / 2;
      (offsets_[middle] <= token ? low : high) = middle;
    }
    enter(low);
    const int warmup_tokens = plan.heads[item.head].warmup;
    edge_ = kReverse ? min(last_, end_ + warmup_tokens) : max(start_, begin_ - warmup_tokens);
  }

  __device__ bool next() {
    if (kReverse ? edge_ <= begin_ : edge_ >= end_) return false;
    if (kReverse && edge_ == start_) {
      int s = sequence - 1;
      while (offsets_[s] == edge_) --s;
      enter(s);
    }
    if (!kReverse && edge_ == last_) {
      int s = sequence + 1;
      while (offsets_[s + 1] == edge_) ++s;
      enter(s);
    }
    if (kReverse) {
      warmup = edge_ > end_;
      opens = edge_ == last_;
      count = min(kChunk, edge_ - max(start_, warmup ? end_ : begin_));
      first = edge_ -= count;
      closes = edge_ == start_;
    } else {
      warmup = edge_ < begin_;
      opens = edge_ == start_;
      count = min(kChunk, min(last_, warmup ? begin_ : end_) - edge_);
      first = edge_;
      edge_ += count;
      closes = edge_ == last_;
    }
    return true;
  }

 private:
  __device__ void enter(int s) {
    sequence = s;
    start_ = offsets_[s];
    last_ = offsets_[s + 1];
  }

  const int32_t* offsets_;
  int begin_, end_;   // the segment
  int start_, last_;  // the sequence: tokens start_ .. last_-1
  int edge_;          // between what is done and what is not
};

// Powers of a head's decay in shared memory, in pairs as the fragments want them.
struct Decays {
  // falling[n + 64] = (g^n, g^(n-1)), rising[n + 64] = (g^n, g^(n+1)); 0 for a negative power.
  float2 falling[2 * kChunk + 1], rising[2 * kChunk + 1];

  __device__ void fill(double slope, int thread, int threads) {
    for (int i = thread; i <= 2 * kChunk; i += threads) {
      const int n = i - kChunk;
      falling[i] = make_float2(power(slope, n), power(slope, n - 1));
      rising[i] = make_float2(power(slope, n), power(slope, n + 1));
    }
  }
  __device__ static float power(double slope, int n) {
    return n < 0 ? 0.0F : static_cast<float>(exp(-slope * n));
  }
};

// Shared tiles hold rows of 64 bf16 (128 bytes) whose eight 16-byte pieces are permuted by the row
// (the 128-byte swizzle of bulk tensor copies and wgmma); wider rows are further such blocks
// behind.
constexpr int kBlockBytes = kChunk * 128;
__device__ inline uint32_t piece_offset(int row, int piece) {
  return (piece >> 3) * kBlockBytes + row * 128 + (((piece & 7) ^ (row & 7)) << 4);
}

// Of a block's shared tiles, for heads of D.
template <int D>
struct TileSizes {
  static constexpr int kGroups = D / 64;  // of four warps
  static constexpr int kTile = D / 64 * kBlockBytes;
  static constexpr int kStage = 3 * kTile;
  static constexpr int kBlocksAnSm = D == 64 ? 2 : 1;
};

__device__ inline void load_matrices(uint32_t (&r)[4], uint32_t address) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];"
               : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
               : "r"(address)
               : "memory");
}

__device__ inline void load_matrices_transposed(uint32_t (&r)[4], uint32_t address) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0,%1,%2,%3}, [%4];"
               : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
               : "r"(address)
               : "memory");
}

__device__ inline uint32_t transpose_matrix(uint32_t x) {
  uint32_t y;
  asm volatile("movmatrix.sync.aligned.m8n8.trans.b16 %0, %1;" : "=r"(y) : "r"(x));
  return y;
}

__device__ inline void store_shared(uint32_t address, uint32_t value) {
  asm volatile("st.shared.b32 [%0], %1;" ::"r"(address), "r"(value) : "memory");
}

__device__ inline uint32_t pack(float low, float high) {
  const __nv_bfloat162 both = __floats2bfloat162_rn(low, high);
  return *reinterpret_cast<const uint32_t*>(&both);
}

__device__ inline uint32_t scale_pair(uint32_t pair, float2 by) {
  return pack(__uint_as_float(pair << 16) * by.x, __uint_as_float(pair & 0xffff0000U) * by.y);
}

// The warps 4w .. 4w+3 of a block own columns 64w .. 64w+63 of v: they hold the transposed state
// X^T [64, D] in registers as fp32 and share nothing with the other warps but the tiles. Engine
// does the products: fragments are those of mma.m16n8k16 and of wgmma, which agree.
template <class Engine, int D, bool kReverse>
class Worker {
 public:
  __device__ Worker(const LaunchPlan& plan, const Decays& decays, int head, const float* initial,
                    bool initial_transposed, float* final_state, __nv_bfloat16* o)
      : plan_(plan),
        decays_(decays),
        head_(plan.first_head + head),
        initial_(initial),
        initial_transposed_(initial_transposed),
        final_(final_state),
        o_(o),
        lane_(threadIdx.x % 32),
        warp_(threadIdx.x / 32 % 4),
        columns_(threadIdx.x / 128 * 64) {
#pragma unroll
    for (int i = 0; i < D / 2; ++i) x_[i] = 0;
  }

  // The tiles hold the chunk's rows; rows from walk.count on are zero in k and v. q is not read in
  // a warm-up. `scores`: 8 KB of these four warps' own that no product still reads.
  // output.publish() shows what they wrote to shared memory to their products; output.stage() may
  // take the chunk's outputs.
  template <class Output>
  __device__ void chunk(const ChunkWalk<kReverse>& walk, uint32_t q, uint32_t k, uint32_t v,
                        uint32_t scores, Output& output) {
    if (walk.opens) load_state(walk.sequence);
    if (walk.warmup) {
      absorb(walk, k, v);
    } else {
      attend(walk, q, k, v, scores, output);
    }
    if (walk.closes && final_ != nullptr) store_state(walk.sequence);
  }

 private:
  __device__ void absorb(const ChunkWalk<kReverse>& walk, uint32_t k, uint32_t v) {
    uint32_t values[4][4];
    load_values(values, v);
    decay_values(values, walk.count);
    decay_state(walk);
    Engine::fence();
    Engine::update_state(x_, values, k);
    Engine::commit();
    Engine::template wait<0>();
    Engine::settle(x_);
  }

  template <class Output>
  __device__ void attend(const ChunkWalk<kReverse>& walk, uint32_t q, uint32_t k, uint32_t v,
                         uint32_t scores, Output& output) {
    float s[32], o[32];
    uint32_t state[D / 16][4];
#pragma unroll
    for (int i = 0; i < D / 16; ++i) {
#pragma unroll
      for (int j = 0; j < 4; ++j) state[i][j] = pack(x_[8 * i + 2 * j], x_[8 * i + 2 * j + 1]);
    }
    Engine::fence();
    Engine::scores(s, q, k);
    Engine::commit();
    Engine::from_state(o, state, q);
    Engine::commit();
    uint32_t values[4][4];
    load_values(values, v);
    Engine::template wait<1>();
    Engine::settle(s);
    store_scores(s, scores);
    output.publish();
    Engine::template wait<0>();
    Engine::settle(o);
    decay_entering(o, walk);
    Engine::fence();
    Engine::add_within(o, values, scores);
    Engine::commit();
    decay_values(values, walk.count);
    decay_state(walk);
    Engine::fence();
    Engine::update_state(x_, values, k);
    Engine::commit();
    Engine::template wait<1>();
    Engine::settle(o);
    if (!output.stage(o, plan_.scale, walk)) store_output(o, walk);
    Engine::template wait<0>();
    Engine::settle(x_);
  }

  // In a fragment: rows row() and row() + 8 of the warp group's 64, columns 8n + column() + {0, 1}.
  __device__ int row() const {
    return 16 * warp_ + lane_ / 4;
  }
  __device__ int column() const {
    return lane_ % 4 * 2;
  }

  __device__ int64_t state_index(int sequence, int key, int value) const {
    return ((static_cast<int64_t>(sequence) * plan_.all_heads + head_) * D + key) * D + value;
  }

  __device__ void load_state(int sequence) {
    const float by = kReverse ? 1 / plan_.scale : 1;
#pragma unroll
    for (int i = 0; i < D / 2; ++i) {
      const int value = columns_ + row() + (i & 2) * 4, key = i / 4 * 8 + column() + (i & 1);
      x_[i] = 0;
      if (initial_ != nullptr) {
        x_[i] = by * (initial_transposed_ ? initial_[state_index(sequence, value, key)]
                                          : initial_[state_index(sequence, key, value)]);
      }
    }
  }

  __device__ void store_state(int sequence) const {
    const float by = kReverse ? plan_.scale * decays_.rising[kChunk].y : 1;
#pragma unroll
    for (int i = 0; i < D / 2; ++i) {
      const int value = columns_ + row() + (i & 2) * 4, key = i / 4 * 8 + column() + (i & 1);
      final_[state_index(sequence, key, value)] = by * x_[i];
    }
  }

  // V^T of the warp's 16 columns as the left operand.
  __device__ void load_values(uint32_t (&values)[4][4], uint32_t v) const {
    const int token = lane_ / 16 * 8 + lane_ % 8;
    const int piece = columns_ / 8 + warp_ * 2 + (lane_ / 8) % 2;
#pragma unroll
    for (int i = 0; i < 4; ++i)
      load_matrices_transposed(values[i], v + piece_offset(16 * i + token, piece));
  }

  // Each token's value, decayed to the chunk's end.
  __device__ void decay_values(uint32_t (&values)[4][4], int count) const {
#pragma unroll
    for (int i = 0; i < 4; ++i) {
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        const int token = 16 * i + 8 * half + column();
        const float2 by =
            kReverse ? decays_.rising[kChunk + token] : decays_.falling[kChunk + count - 1 - token];
        values[i][2 * half] = scale_pair(values[i][2 * half], by);
        values[i][2 * half + 1] = scale_pair(values[i][2 * half + 1], by);
      }
    }
  }

  // The gradient that opens a reversed sequence is seen by the first token undecayed.
  __device__ static constexpr int opening(const ChunkWalk<kReverse>& walk) {
    return kReverse && walk.opens ? 1 : 0;
  }

  __device__ void decay_state(const ChunkWalk<kReverse>& walk) {
    const float by = decays_.rising[kChunk + walk.count - opening(walk)].x;
#pragma unroll
    for (int i = 0; i < D / 2; ++i) x_[i] *= by;
  }

  // o, so far what the entering state gives undecayed, gets its decay.
  __device__ void decay_entering(float (&o)[32], const ChunkWalk<kReverse>& walk) const {
#pragma unroll
    for (int n = 0; n < 8; ++n) {
      const int token = 8 * n + column();
      const float2 by = kReverse ? decays_.falling[kChunk + walk.count - token - opening(walk)]
                                 : decays_.rising[kChunk + token + 1];
      o[4 * n] *= by.x;
      o[4 * n + 1] *= by.y;
      o[4 * n + 2] *= by.x;
      o[4 * n + 3] *= by.y;
    }
  }

  // Masked scores as bf16, row = token of q.
  __device__ void store_scores(const float (&s)[32], uint32_t scores) const {
    const int i = row();
#pragma unroll
    for (int n = 0; n < 8; ++n) {
      const int distance = i - 8 * n - column();
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        const float2 by = kReverse ? decays_.rising[kChunk - distance - 8 * half]
                                   : decays_.falling[kChunk + distance + 8 * half];
        const int r = i + 8 * half;
        store_shared(scores + piece_offset(r, n) + column() * 2,
                     pack(s[4 * n + 2 * half] * by.x, s[4 * n + 2 * half + 1] * by.y));
      }
    }
  }

  // o is [16 columns of v, 64 tokens] a warp; lanes exchange until each has 4 columns of one token.
  __device__ void store_output(const float (&o)[32], const ChunkWalk<kReverse>& walk) const {
    const bool odd = lane_ % 2 != 0;
    const int column = columns_ + 16 * warp_ + (odd ? 8 : 0) + lane_ % 4 / 2 * 4;
    const int64_t stride = static_cast<int64_t>(plan_.all_heads) * D;
    __nv_bfloat16* to =
        o_ + (static_cast<int64_t>(walk.first) + lane_ / 4) * stride + head_ * D + column;
#pragma unroll
    for (int n = 0; n < 8; ++n) {
      const uint32_t a = transpose_matrix(pack(o[4 * n] * plan_.scale, o[4 * n + 1] * plan_.scale));
      const uint32_t b =
          transpose_matrix(pack(o[4 * n + 2] * plan_.scale, o[4 * n + 3] * plan_.scale));
      const uint32_t other = __shfl_xor_sync(0xffffffffU, odd ? a : b, 1);
      const uint2 both = odd ? make_uint2(other, b) : make_uint2(a, other);
      if (8 * n + lane_ / 4 < walk.count) *reinterpret_cast<uint2*>(to + 8 * n * stride) = both;
    }
  }

  const LaunchPlan& plan_;
  const Decays& decays_;
  int head_;
  const float* initial_;
  bool initial_transposed_;
  float* final_;
  __nv_bfloat16* o_;
  int lane_, warp_, columns_;
  float x_[D / 2];  // X^T, rows = columns of v, in fragment order
};

}  // namespace halo::lightning
