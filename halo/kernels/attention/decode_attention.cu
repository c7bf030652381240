// Split-KV attention of decoding sequences, bound by reading keys and values once. All sequences'
// tokens, in steps of 64, are dealt out evenly: a block takes the range of steps of one key head
// that falls to it, which may end one sequence, hold others and begin the next. A warp goes through
// 16 tokens at a time, straight from memory to the tensor cores:
//   scores [8 query rows, 16 tokens] = q k^T, where a lane's 16 bytes of a key are its fragment,
//   o^T [head_dim, 8 query rows] += v^T p^T, where pairs of tokens are interleaved in registers and
//   the scores are already laid out as the second operand.
// Keys and values in int8 become bf16 in registers, exactly; a key's scale multiplies its score, a
// value's its weight. Half the bytes are on their way for a block, so one more
// runs beside the others.
// The next tokens' keys are on their way from the moment the products have used the registers, be
// they another sequence's; the first ones' before the kernel that makes the queries has ended. The
// warps of a block add up in shared memory, the parts of a sequence through device memory: the
// block that comes last adds them in their order, so the bits do not depend on who that is.
#include "halo/kernels/attention/decode_attention_launch.h"
#include "halo/kernels/attention/decode_tokens.cuh"
#include "halo/kernels/cuda/elements.cuh"
#include "halo/kernels/cuda/mma.cuh"
#include "halo/kernels/cuda/overlap.cuh"
#include "halo/kernels/cuda/rows.cuh"

namespace halo {
namespace {

using namespace decode;

constexpr int kWarps = 4, kThreads = 32 * kWarps;
template <class T>
constexpr int kBlocksAProcessor = sizeof(T) == 1 ? 3 : 2;
constexpr int kStep = kWarps * kGroup;  // tokens a block takes at a time
constexpr int kRows = kMostDecodeRows;
constexpr int kFewestSteps = 2;  // of a range
constexpr int kBatch = 8;        // parts of a sequence that a thread reads at a time

struct Parameters {
  DecodeAttentionLaunch args;
  int most_ranges;  // of a key head
  int block_shift;
};

__device__ __forceinline__ int ceil_div(int a, int b) {
  return (a + b - 1) / b;
}

// How the sequences lie one after another, in steps, and how those are cut into ranges.
struct Plan {
  int firsts[kMostDecodeSequences + 1];  // steps before a sequence; last, all of them
  int lengths[kMostDecodeSequences];     // tokens
  int sums[kThreads];
  int steps, ranges;

  // The first step of a range, and the range that has a step.
  __device__ int begin_of(int range) const {
    return static_cast<int>(int64_t{steps} * range / ranges);
  }
  __device__ int range_of(int step) const {
    return static_cast<int>((int64_t{step + 1} * ranges - 1) / steps);
  }
  // The sequence that has a step.
  __device__ int sequence_of(int step, int count) const {
    int low = 0, high = count;  // firsts[low] <= step < firsts[high]
    while (high - low > 1) {
      const int middle = (low + high) / 2;
      (firsts[middle] <= step ? low : high) = middle;
    }
    return low;
  }
};

__device__ void make_plan(const Parameters& p, Plan& plan) {
  const auto count = static_cast<int>(p.args.sequences);
  const int each = ceil_div(count, kThreads), begin = threadIdx.x * each;
  const int end = min(begin + each, count);
  int mine = 0;
  for (int s = begin; s < end; ++s) {
    plan.lengths[s] = static_cast<int>(p.args.lengths[s]);
    mine += ceil_div(plan.lengths[s], kStep);
  }
  plan.sums[threadIdx.x] = mine;
  __syncthreads();
  int before = 0, all = 0;
  for (int i = 0; i < kThreads && i * each < count; ++i) {
    if (i < threadIdx.x) before += plan.sums[i];
    all += plan.sums[i];
  }
  for (int s = begin; s < end; ++s) {
    plan.firsts[s] = before;
    before += ceil_div(plan.lengths[s], kStep);
  }
  if (threadIdx.x == 0) {
    plan.firsts[count] = plan.steps = all;
    plan.ranges = min(p.most_ranges, ceil_div(all, kFewestSteps));
  }
  __syncthreads();
}

// Element offset of the first of 16 tokens' rows in the pool.
__device__ __forceinline__ int64_t row_of(const Parameters& p, int64_t block, int token) {
  const int64_t within = token & (static_cast<int>(p.args.block_size) - 1);
  return ((block << p.block_shift) + within) * p.args.kv_heads * p.args.head_dim;
}

// Where the scale of the first of 16 tokens is among all.
__device__ __forceinline__ int64_t scale_of(const Parameters& p, int64_t block, int head,
                                            int token) {
  const int64_t within = token & (static_cast<int>(p.args.block_size) - 1);
  return ((block * p.args.kv_heads + head) << p.block_shift) + within;
}

// What a warp takes of a step.
struct Place {
  int sequence, block;  // of the cache; whatever where there are no tokens
  int token, last;      // its first token; the last one's distance from it, negative: no tokens
};

__device__ __forceinline__ Place place_of(const Parameters& p, const Plan& plan, int step,
                                          int sequence) {
  while (step >= plan.firsts[sequence + 1]) ++sequence;
  Place at;
  at.sequence = sequence;
  at.token = (step - plan.firsts[sequence]) * kStep + static_cast<int>(threadIdx.x) / 32 * kGroup;
  at.last = min(plan.lengths[sequence] - 1 - at.token, kGroup - 1);
  at.block = at.last < 0
                 ? 0
                 : p.args.block_table[sequence * p.args.max_blocks + (at.token >> p.block_shift)];
  return at;
}

// Query row g of the lane, its numbers as load_keys deals them out.
template <int D, class T>
__device__ __forceinline__ void load_queries(const Parameters& p, int sequence, int head,
                                             uint4 (&q)[D / 32]) {
  const DecodeAttentionLaunch& a = p.args;
  const int g = threadIdx.x % 32 / 4, t = threadIdx.x % 4;
  const auto group = static_cast<int>(a.heads / a.kv_heads);
  if (g >= group * a.tokens) return;
  const int64_t token = sequence * a.tokens + g / group;
  const Bf16* row =
      static_cast<const Bf16*>(a.q) + (token * a.heads + head * group + g % group) * D;
#pragma unroll
  for (int j = 0; j < D / 32; ++j) {
    const int at = sizeof(T) == 1 ? 64 * (j / 2) + 16 * t + 8 * (j % 2) : 32 * j + 8 * t;
    q[j] = *reinterpret_cast<const uint4*>(row + at);
  }
}

// Scores of tokens that the lane's query row does not see become -inf, the others are scaled.
__device__ __forceinline__ void mask(const Parameters& p, int length, int token,
                                     float (&scores)[4]) {
  const int g = threadIdx.x % 32 / 4, t = threadIdx.x % 4;
  const auto group = static_cast<int>(p.args.heads / p.args.kv_heads);
  const auto tokens = static_cast<int>(p.args.tokens);
  const int seen = length - tokens + min(g / group, tokens - 1) + 1;
  const float scale = p.args.scale * 1.44269504f;
#pragma unroll
  for (int i = 0; i < 4; ++i)
    scores[i] = token + i / 2 * 8 + 2 * t + i % 2 < seen ? scores[i] * scale : -INFINITY;
}

// What the warps of a block leave to each other, and then threads that add up parts.
template <int D>
struct Shared {
  Plan plan;
  alignas(16) float o[kWarps][kRows][D];
  float most[kWarps][kRows], sum[kWarps][kRows];
  int last;
};

template <int D, class T>
__device__ void leave(const Sums<D>& sums, Shared<D>& shared) {
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32, g = lane / 4, t = lane % 4;
  float sum[1] = {sums.sum};
  cuda::fold_lanes<cuda::Sum>(sum, 4);
  if (t == 0) {
    shared.most[warp][g] = sums.most;
    shared.sum[warp][g] = sum[0];
  }
#pragma unroll
  for (int i = 0; i < D / 16; ++i) {
#pragma unroll
    for (int r = 0; r < 4; ++r)
      shared.o[warp][2 * t + r % 2][element_of<D, T>(i + r / 2 * (D / 16), g)] = sums.o[i][r];
  }
}

// Row `row` of what a range has of its first sequence (which = 0) or of its last one, in scratch:
// [head_dim], then maximum and sum.
__device__ __forceinline__ float* part_of(const Parameters& p, int range, int which, int head,
                                          int row) {
  const DecodeAttentionLaunch& a = p.args;
  const int64_t rows = a.heads / a.kv_heads * a.tokens;
  return a.parts + (((int64_t{range} * 2 + which) * a.kv_heads + head) * rows + row) *
                       (a.head_dim + kDecodePadding);
}

// One sequence and key head, and the ranges that have steps of it.
struct Joined {
  int sequence, head;
  int range;  // this block's
  int first_range, parts;
  bool begins_inside;  // the first range, with another sequence
};

__device__ __forceinline__ float* part_of(const Parameters& p, const Joined& all, int range,
                                          int row) {
  return part_of(p, range, range == all.first_range && all.begins_inside, all.head, row);
}

__device__ __forceinline__ Joined joined_of(const Plan& plan, int sequence, int head, int range) {
  const int first = plan.firsts[sequence];
  Joined all{sequence, head, range, plan.range_of(first), 0, false};
  all.parts = plan.range_of(plan.firsts[sequence + 1] - 1) - all.first_range + 1;
  all.begins_inside = plan.begin_of(all.first_range) != first;
  return all;
}

// The `count` first of what stands in shared memory, added: a column, and the row's sum.
template <int D>
__device__ __forceinline__ float add_up(const Shared<D>& shared, int count, int row, int column,
                                        float& most, float& sum) {
  most = -INFINITY;
  for (int i = 0; i < count; ++i) most = fmaxf(most, shared.most[i][row]);
  const float shift = most == -INFINITY ? 0 : most;
  float o = 0;
  sum = 0;
  for (int i = 0; i < count; ++i) {
    const float by = exp2f(shared.most[i][row] - shift);
    sum += by * shared.sum[i][row];
    o += by * shared.o[i][row][column];
  }
  return o;
}

// The end result.
template <int D>
__device__ void store_rows(const Parameters& p, const Joined& all, const Shared<D>& shared,
                           int count, int rows) {
  const DecodeAttentionLaunch& a = p.args;
  const auto group = static_cast<int>(a.heads / a.kv_heads);
  for (int i = threadIdx.x; i < rows * D; i += kThreads) {
    const int row = i / D;
    float most, sum;
    const float o = add_up(shared, count, row, i % D, most, sum);
    const int64_t token = all.sequence * a.tokens + row / group;
    static_cast<Bf16*>(a.o)[(token * a.heads + all.head * group + row % group) * D + i % D] =
        cuda::narrow<Bf16>(o / sum);
  }
}

template <int D>
__device__ void store_part(const Parameters& p, const Joined& all, const Shared<D>& shared,
                           int rows) {
  for (int i = threadIdx.x; i < rows * D; i += kThreads) {
    float most, sum;
    const float o = add_up(shared, kWarps, i / D, i % D, most, sum);
    float* part = part_of(p, all, all.range, i / D);
    part[i % D] = o;
    if (i % D == 0) *reinterpret_cast<float2*>(part + D) = {most, sum};
  }
}

// Whether the block is the last of its sequence and head to come here.
__device__ bool comes_last(const Parameters& p, const Joined& all, int& last) {
  __syncthreads();
  if (threadIdx.x == 0) {
    __threadfence();
    int32_t* arrivals = p.args.arrivals + all.sequence * p.args.kv_heads + all.head;
    last = atomicAdd(arrivals, 1) == all.parts - 1;
    if (last) *arrivals = 0;
    __threadfence();
  }
  __syncthreads();
  return last;
}

// Adds up parts of a sequence in shared memory; returns how many sums are left there. Four columns
// a thread; as many threads as there are, up to kWarps, share a column's parts.
template <int D>
__device__ int gather_parts(const Parameters& p, const Joined& all, Shared<D>& shared, int rows) {
  constexpr int kColumns = D / 4;
  const int units = rows * kColumns, sharing = max(1, min(kThreads / units, kWarps));
  const int slot = sharing == 1 ? 0 : threadIdx.x / units;
  for (int unit = sharing == 1 ? threadIdx.x : threadIdx.x % units; unit < units && slot < sharing;
       unit += kThreads) {
    const int row = unit / kColumns, column = unit % kColumns * 4;
    float most = -INFINITY, sum = 0;
    float4 o{};
    for (int i = slot; i < all.parts; i += sharing * kBatch) {
      float2 weight[kBatch];
      float4 part[kBatch];
#pragma unroll
      for (int u = 0; u < kBatch; ++u) {
        weight[u] = {-INFINITY, 0};
        part[u] = {};
        if (i + u * sharing >= all.parts) continue;
        const float* from = part_of(p, all, all.first_range + i + u * sharing, row);
        weight[u] = __ldcg(reinterpret_cast<const float2*>(from + D));
        part[u] = __ldcg(reinterpret_cast<const float4*>(from + column));
      }
      const float old = most;
#pragma unroll
      for (int u = 0; u < kBatch; ++u) most = fmaxf(most, weight[u].x);
      const float shift = most == -INFINITY ? 0 : most, kept = exp2f(old - shift);
      o = {o.x * kept, o.y * kept, o.z * kept, o.w * kept};
      sum *= kept;
#pragma unroll
      for (int u = 0; u < kBatch; ++u) {
        const float by = exp2f(weight[u].x - shift);
        sum += by * weight[u].y;
        o.x += by * part[u].x;
        o.y += by * part[u].y;
        o.z += by * part[u].z;
        o.w += by * part[u].w;
      }
    }
    *reinterpret_cast<float4*>(&shared.o[slot][row][column]) = o;
    if (column == 0) {
      shared.most[slot][row] = most;
      shared.sum[slot][row] = sum;
    }
  }
  __syncthreads();
  return sharing;
}

// The block's part of a sequence ends.
template <int D, class T>
__device__ void finish(const Parameters& p, int sequence, int head, int range, const Sums<D>& sums,
                       Shared<D>& shared) {
  const int rows = static_cast<int>(p.args.heads / p.args.kv_heads * p.args.tokens);
  leave<D, T>(sums, shared);
  __syncthreads();
  const Joined all = joined_of(shared.plan, sequence, head, range);
  if (all.parts == 1) {
    store_rows<D>(p, all, shared, kWarps, rows);
  } else {
    store_part<D>(p, all, shared, rows);
    if (comes_last(p, all, shared.last)) {
      const int left = gather_parts<D>(p, all, shared, rows);
      store_rows<D>(p, all, shared, left, rows);
    }
  }
  __syncthreads();
}

template <int D, class T>
__global__ void __launch_bounds__(kThreads, kBlocksAProcessor<T>)
    decode_attention(const __grid_constant__ Parameters p) {
  __shared__ __align__(16) Shared<D> shared;
  cuda::let_next_start();  // the projection of o, which reads weights alone before it waits
  const DecodeAttentionLaunch& a = p.args;
  const Plan& plan = shared.plan;
  make_plan(p, shared.plan);
  const int head = blockIdx.x % static_cast<unsigned>(a.kv_heads);
  const int range = blockIdx.x / static_cast<unsigned>(a.kv_heads);
  if (range >= plan.ranges) {
    cuda::wait_for_inputs();  // as whoever runs after the next kernel relies on
    return;
  }
  const int end = plan.begin_of(range + 1);
  int step = plan.begin_of(range);
  const auto stride = static_cast<int>(a.kv_heads * D);
  const T* keys = static_cast<const T*>(a.keys) + head * D;
  const T* values = static_cast<const T*>(a.values) + head * D;
  Keys<D, T> k;
  Values<D, T> v;
  const auto fetch_keys = [&](const Place& at) {
    if (at.last < 0) return;
    load_keys<D>(keys + row_of(p, at.block, at.token), stride, at.last, k);
    if constexpr (sizeof(T) == 1)
      load_scales(a.key_scales + scale_of(p, at.block, head, at.token), at.last, k.scales);
  };
  const auto fetch_values = [&](const Place& at) {
    if (at.last < 0) return;
    load_values<D>(values + row_of(p, at.block, at.token), stride, at.last, v);
    if constexpr (sizeof(T) == 1)
      load_scales(a.value_scales + scale_of(p, at.block, head, at.token), at.last, v.scales);
  };

  Place now = place_of(p, plan, step, plan.sequence_of(step, static_cast<int>(a.sequences)));
  // The newest tokens are the kernel before this one's.
  const bool early = now.token + kGroup <= plan.lengths[now.sequence] - a.tokens;
  if (early) {
    fetch_keys(now);
    fetch_values(now);
  }
  Place next = step + 1 < end ? place_of(p, plan, step + 1, now.sequence) : now;
  cuda::wait_for_inputs();
  uint4 q[D / 32] = {};
  load_queries<D, T>(p, now.sequence, head, q);
  if (!early) {
    fetch_keys(now);
    fetch_values(now);
  }
  Sums<D> sums;
  clear(sums);
  for (; step < end; ++step) {
    const bool more = step + 1 < end, ends = !more || next.sequence != now.sequence;
    float scores[4];
    if (now.last >= 0) multiply_keys<D>(q, k, scores);
    Place following = next;
    if (more) {
      fetch_keys(next);
      if (ends) load_queries<D, T>(p, next.sequence, head, q);
      if (step + 2 < end) following = place_of(p, plan, step + 2, next.sequence);
    }
    if (now.last >= 0) {
      mask(p, plan.lengths[now.sequence], now.token, scores);
      uint32_t weights[2];
      weigh<D>(scores, v, sums, weights);
      multiply_values<D>(v, weights, sums);
    }
    if (more) fetch_values(next);
    if (ends) {
      finish<D, T>(p, now.sequence, head, range, sums, shared);
      clear(sums);
    }
    now = next;
    next = following;
  }
}

template <int D, class T>
void launch(Parameters& parameters, void* stream) {
  const auto heads = static_cast<int>(parameters.args.kv_heads);
  const int ranges = cuda::processors() * kBlocksAProcessor<T> / heads;
  parameters.most_ranges = ranges < 1               ? 1
                           : ranges > kDecodeRanges ? static_cast<int>(kDecodeRanges)
                                                    : ranges;
  cuda::launch_overlapped(decode_attention<D, T>, dim3(parameters.most_ranges * heads), kThreads, 0,
                          stream, parameters);
}

__global__ void newest_rows(const NewestRowsLaunch p) {
  cuda::wait_for_inputs();
  cuda::let_next_start();
  const int64_t i = int64_t{blockIdx.x} * kThreads + threadIdx.x, sequence = i / p.tokens;
  if (sequence >= p.sequences) return;
  const int64_t length = p.lengths[sequence], token = length - p.tokens + i % p.tokens;
  p.rows[i] = length == 0
                  ? -1
                  : p.block_table[sequence * p.max_blocks + token / p.block_size] * p.block_size +
                        token % p.block_size;
}

}  // namespace

void launch_newest_rows(const NewestRowsLaunch& args, void* stream) {
  const int64_t blocks = (args.sequences * args.tokens + kThreads - 1) / kThreads;
  if (blocks == 0) return;
  cuda::launch_overlapped(newest_rows, dim3(static_cast<unsigned>(blocks)), kThreads, 0, stream,
                          args);
  check_launch("newest_rows");
}

void launch_decode_attention(const DecodeAttentionLaunch& args, void* stream) {
  if (args.sequences == 0) return;
  Parameters parameters{args, 0, 0};
  while ((int64_t{1} << parameters.block_shift) < args.block_size) ++parameters.block_shift;
  if (args.key_scales) {
    args.head_dim == 64 ? launch<64, int8_t>(parameters, stream)
                        : launch<128, int8_t>(parameters, stream);
  } else {
    args.head_dim == 64 ? launch<64, Bf16>(parameters, stream)
                        : launch<128, Bf16>(parameters, stream);
  }
  check_launch("decode_attention");
}

}  // namespace halo
