// Split-KV attention of decoding sequences, bound by reading keys and values once. All sequences'
// tokens, in steps of 64 (in int8 of 128), are dealt out evenly: a block takes the range of steps
// of one key head (in int8 of two, if it can) that falls to it, which may end one sequence, hold
// others and begin the next. A warp goes through 16 tokens (32) at a time, straight from memory to
// the tensor cores:
//   scores [8 query rows, tokens] = q k^T, where a lane's 16 bytes of a key are its fragment,
//   o^T [head_dim, 8 query rows] += v^T p^T, where pairs of tokens are interleaved in registers and
//   the scores are already laid out as the second operand.
// Keys and values in int8 are multiplied as the integers that they are (decode_tokens_int8.cuh); a
// key's scale multiplies its score, a value's its weight.
// The next tokens are on their way while these are multiplied, be they another sequence's; the
// first ones before the kernel that makes the queries has ended. The warps of a block add up in
// shared memory, the parts of a sequence through device memory: the block that comes last adds them
// in their order, so the bits do not depend on who that is.
#include "halo/kernels/attention/decode_attention_launch.h"
#include "halo/kernels/attention/decode_plan.cuh"
#include "halo/kernels/attention/decode_tokens.cuh"
#include "halo/kernels/attention/decode_tokens_int8.cuh"
#include "halo/kernels/cuda/elements.cuh"
#include "halo/kernels/cuda/mma.cuh"
#include "halo/kernels/cuda/overlap.cuh"
#include "halo/kernels/cuda/rows.cuh"

namespace halo {
namespace {

using namespace decode;

constexpr int kRows = kMostDecodeRows;
constexpr int kAhead = 2;          // steps of int8 that are on their way, or there, at a time
static_assert(kAhead == 2);        // attend() keeps the places of so many steps to come
constexpr int kBatch = 8;          // parts of a sequence that a thread reads at a time
constexpr int kInt8Heads = 2;      // of a block, if there are as many
constexpr int kRowsThreads = 128;  // of a block that finds places of the newest rows

// Query rows of a key head, and the one that a lane has; there may be none.
__device__ __forceinline__ int rows_of(const Parameters& p) {
  return static_cast<int>(p.args.heads / p.args.kv_heads * p.args.tokens);
}
template <class T>
__device__ __forceinline__ int row_of_lane(const Parameters& p) {
  const int g = threadIdx.x % 32 / 4;
  return sizeof(T) == 1 && rows_of(p) <= kFewRows ? g % kFewRows : g;
}

template <int D, class T>
__device__ __forceinline__ void load_queries(const Parameters& p, int sequence, int head,
                                             Queries<D, T>& q) {
  const DecodeAttentionLaunch& a = p.args;
  const int row = row_of_lane<T>(p);
  const auto group = static_cast<int>(a.heads / a.kv_heads);
  const int64_t token = sequence * a.tokens + row / group;
  const Bf16* numbers =
      static_cast<const Bf16*>(a.q) + (token * a.heads + head * group + row % group) * D;
  decode::load_queries<D>(row < rows_of(p) ? numbers : nullptr, a.scale * 1.44269504f, q);
}

// Scores of tokens that the lane's query row does not see become -inf, the others are scaled.
template <class T>
__device__ __forceinline__ void mask(const Parameters& p, int length, int token, float factor,
                                     float (&scores)[kScores<T>]) {
  const auto group = static_cast<int>(p.args.heads / p.args.kv_heads);
  const auto tokens = static_cast<int>(p.args.tokens);
  const int seen = length - tokens + min(row_of_lane<T>(p) / group, tokens - 1) + 1;
#pragma unroll
  for (int i = 0; i < kScores<T>; ++i)
    scores[i] = token + token_of_score(i, T{}) < seen ? scores[i] * factor : -INFINITY;
}

// What the warps of a block leave to each other, and then threads that add up parts.
template <int D, class F>
struct Shared {
  Plan<F::kThreads> plan;
  alignas(16) float o[F::kWarps][kRows][D];  // those of a head beside each other
  float most[F::kWarps][kRows], sum[F::kWarps][kRows];
  int last;
};

template <int D, class F>
__device__ void leave(const Parameters& p, Sums<D>& sums, Shared<D, F>& shared) {
  using T = typename F::T;
  finish_values<D>(sums, rows_of(p), T{});
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

// One sequence and the key heads of a block, and the ranges that have steps of it.
struct Joined {
  int sequence, head;  // the first one
  int range;           // this block's
  int first_range, parts;
  bool begins_inside;  // the first range, with another sequence
};

__device__ __forceinline__ float* part_of(const Parameters& p, const Joined& all, int range,
                                          int head, int row) {
  return part_of(p, range, range == all.first_range && all.begins_inside, all.head + head, row);
}

template <int kThreads>
__device__ __forceinline__ Joined joined_of(const Plan<kThreads>& plan, int sequence, int head,
                                            int range) {
  const int first = plan.firsts[sequence];
  Joined all{sequence, head, range, plan.range_of(first), 0, false};
  all.parts = plan.range_of(plan.firsts[sequence + 1] - 1) - all.first_range + 1;
  all.begins_inside = plan.begin_of(all.first_range) != first;
  return all;
}

// The `count` first of what stands of the block's head `head` in shared memory, added: a column,
// and the row's sum.
template <int D, class F>
__device__ __forceinline__ float add_up(const Shared<D, F>& shared, int head, int count, int row,
                                        int column, float& most, float& sum) {
  const int first = head * F::kWarpsAHead, end = first + count;
  most = -INFINITY;
  for (int i = first; i < end; ++i) most = fmaxf(most, shared.most[i][row]);
  const float shift = most == -INFINITY ? 0 : most;
  float o = 0;
  sum = 0;
  for (int i = first; i < end; ++i) {
    const float by = exp2f(shared.most[i][row] - shift);
    sum += by * shared.sum[i][row];
    o += by * shared.o[i][row][column];
  }
  return o;
}

// The end result.
template <int D, class F>
__device__ void store_rows(const Parameters& p, const Joined& all, const Shared<D, F>& shared,
                           int count, int rows) {
  const DecodeAttentionLaunch& a = p.args;
  const auto group = static_cast<int>(a.heads / a.kv_heads);
  for (int i = threadIdx.x; i < F::kHeads * rows * D; i += F::kThreads) {
    const int head = i / D / rows, row = i / D % rows;
    float most, sum;
    const float o = add_up(shared, head, count, row, i % D, most, sum);
    const int64_t token = all.sequence * a.tokens + row / group;
    const int64_t query_head = (all.head + head) * group + row % group;
    static_cast<Bf16*>(a.o)[(token * a.heads + query_head) * D + i % D] =
        cuda::narrow<Bf16>(o / sum);
  }
}

template <int D, class F>
__device__ void store_part(const Parameters& p, const Joined& all, const Shared<D, F>& shared,
                           int rows) {
  for (int i = threadIdx.x; i < F::kHeads * rows * D; i += F::kThreads) {
    const int head = i / D / rows, row = i / D % rows;
    float most, sum;
    const float o = add_up(shared, head, F::kWarpsAHead, row, i % D, most, sum);
    float* part = part_of(p, all, all.range, head, row);
    part[i % D] = o;
    if (i % D == 0) *reinterpret_cast<float2*>(part + D) = {most, sum};
  }
}

// Whether the block is the last of its sequence and heads to come here.
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

// Adds up parts of a sequence in shared memory; returns how many sums of a head are left there.
// Four columns a thread; as many threads as there are, up to a head's warps, share a column's
// parts.
template <int D, class F>
__device__ int gather_parts(const Parameters& p, const Joined& all, Shared<D, F>& shared,
                            int rows) {
  constexpr int kColumns = D / 4, kThreads = F::kThreads;
  const int units = F::kHeads * rows * kColumns;
  const int sharing = max(1, min(kThreads / units, F::kWarpsAHead));
  const int slot = sharing == 1 ? 0 : threadIdx.x / units;
  for (int unit = sharing == 1 ? threadIdx.x : threadIdx.x % units; unit < units && slot < sharing;
       unit += kThreads) {
    const int head = unit / kColumns / rows, row = unit / kColumns % rows;
    const int column = unit % kColumns * 4;
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
        const float* from = part_of(p, all, all.first_range + i + u * sharing, head, row);
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
    const int at = head * F::kWarpsAHead + slot;
    *reinterpret_cast<float4*>(&shared.o[at][row][column]) = o;
    if (column == 0) {
      shared.most[at][row] = most;
      shared.sum[at][row] = sum;
    }
  }
  __syncthreads();
  return sharing;
}

// The block's part of a sequence ends.
template <int D, class F>
__device__ void finish(const Parameters& p, int sequence, int head, int range, Sums<D>& sums,
                       Shared<D, F>& shared) {
  const int rows = rows_of(p);
  leave(p, sums, shared);
  __syncthreads();
  const Joined all = joined_of(shared.plan, sequence, head, range);
  if (all.parts == 1) {
    store_rows(p, all, shared, F::kWarpsAHead, rows);
  } else {
    store_part(p, all, shared, rows);
    if (comes_last(p, all, shared.last)) {
      const int left = gather_parts(p, all, shared, rows);
      store_rows(p, all, shared, left, rows);
    }
  }
  __syncthreads();
}

template <class F>
__device__ __forceinline__ unsigned head_groups(const Parameters& p) {
  return static_cast<unsigned>(p.args.kv_heads) / F::kHeads;
}

// A block's range of steps of its key heads, and where a warp's one is stored.
template <int D, class F>
struct Range {
  using T = typename F::T;
  const Parameters& p;
  Shared<D, F>& shared;
  int first_head, head, range, begin, end;
  const T *keys, *values;
  int stride;

  __device__ Range(const Parameters& parameters, Shared<D, F>& memory)
      : p(parameters),
        shared(memory),
        first_head(static_cast<int>(blockIdx.x % head_groups<F>(p)) * F::kHeads),
        head(first_head + static_cast<int>(threadIdx.x) / (32 * F::kWarpsAHead)),
        range(static_cast<int>(blockIdx.x / head_groups<F>(p))),
        begin(shared.plan.begin_of(range)),
        end(shared.plan.begin_of(range + 1)),
        keys(static_cast<const T*>(p.args.keys) + head * D),
        values(static_cast<const T*>(p.args.values) + head * D),
        stride(static_cast<int>(p.args.kv_heads * D)) {}

  __device__ Place first() const {
    const auto sequences = static_cast<int>(p.args.sequences);
    return place_of<F>(p, shared.plan, begin, shared.plan.sequence_of(begin, sequences));
  }
  // The place of a step, which is not before that of `other`; `other` where there is no such step.
  __device__ Place place(int step, const Place& other) const {
    return step < end ? place_of<F>(p, shared.plan, step, other.sequence) : other;
  }
  // Whether all of them were there before this call: the newest are the kernel before this one's.
  __device__ bool are_old(const Place& at) const {
    return at.token + kGroup<T> <= shared.plan.lengths[at.sequence] - p.args.tokens;
  }
  // The weights of a place's tokens are made of their scores.
  __device__ void weigh_at(const Place& at, float factor, float (&scores)[kScores<T>],
                           Sums<D>& sums) const {
    mask<T>(p, shared.plan.lengths[at.sequence], at.token, factor, scores);
    weigh<D>(scores, sums);
  }
  __device__ void finish_sequence(const Place& at, Sums<D>& sums) const {
    finish(p, at.sequence, first_head, range, sums, shared);
    clear(sums);
  }
};

// In bf16 keys and values go to registers, whose use the next ones wait for.
template <int D, int kHeads>
__device__ void attend(const Range<D, Form<Bf16, kHeads>>& all) {
  const Parameters& p = all.p;
  Keys<D, Bf16> k;
  Values<D, Bf16> v;
  const auto fetch_keys = [&](const Place& at) {
    if (at.last >= 0)
      load_keys<D>(all.keys + row_of(p, at.block, at.token), all.stride, at.last, k);
  };
  const auto fetch_values = [&](const Place& at) {
    if (at.last >= 0)
      load_values<D>(all.values + row_of(p, at.block, at.token), all.stride, at.last, v);
  };
  Place now = all.first(), next = all.place(all.begin + 1, now);
  const bool early = all.are_old(now);
  if (early) {
    fetch_keys(now);
    fetch_values(now);
  }
  cuda::wait_for_inputs();
  Queries<D, Bf16> q;
  load_queries<D, Bf16>(p, now.sequence, all.head, q);
  if (!early) {
    fetch_keys(now);
    fetch_values(now);
  }
  Sums<D> sums;
  clear(sums);
  for (int step = all.begin; step < all.end; ++step) {
    const bool more = step + 1 < all.end, ends = !more || next.sequence != now.sequence;
    float scores[kScores<Bf16>];
    const float factor = q.factor;
    if (now.last >= 0) multiply_keys<D>(q, k, scores);
    Place following = next;
    if (more) {
      fetch_keys(next);
      if (ends) load_queries<D, Bf16>(p, next.sequence, all.head, q);
      following = all.place(step + 2, next);
    }
    if (now.last >= 0) {
      all.weigh_at(now, factor, scores, sums);
      add_values<D>(v, scores, rows_of(p), sums);
    }
    if (more) fetch_values(next);
    if (ends) all.finish_sequence(now, sums);
    now = next;
    next = following;
  }
}

// Warps that have the same tokens of several heads, whose numbers lie beside each other, wait for
// each other, so that they are read together.
template <class F>
__device__ __forceinline__ void hold_pace() {
  asm volatile("bar.sync %0, %1;" ::"r"(1 + threadIdx.x / 32 % F::kWarpsAHead), "n"(32 * F::kHeads)
               : "memory");
}

// In int8 half the bytes would be on their way so: they go to shared memory, two steps ahead.
template <int D, int kHeads>
__device__ void attend(const Range<D, Form<int8_t, kHeads>>& all) {
  extern __shared__ __align__(128) unsigned char dynamic[];
  const Parameters& p = all.p;
  Staged<D>* staged = reinterpret_cast<Staged<D>*>(dynamic) + threadIdx.x / 32 * kAhead;
  const auto copy = [&](const Place& at, int step) {
    Staged<D>& to = staged[(step - all.begin) % kAhead];
    if (step < all.end && at.last >= 0) {
      const int64_t row = row_of(p, at.block, at.token);
      const int64_t scale = scale_of(p, at.block, all.head, at.token);
      copy_keys<D>(all.keys + row, all.stride, at.last, to);
      copy_scales<D>(p.args.key_scales + scale, 0, to);
      copy_values<D>(all.values + row, all.stride, at.last, to);
      copy_scales<D>(p.args.value_scales + scale, 1, to);
    }
    cuda::end_copies();
  };
  Place now = all.first(), next = all.place(all.begin + 1, now);
  const auto begin_copies = [&] {
    copy(now, all.begin);
    copy(next, all.begin + 1);
  };
  const bool early = all.are_old(now) && all.are_old(next);
  if (early) begin_copies();
  cuda::wait_for_inputs();
  if (!early) begin_copies();
  Queries<D, int8_t> q;
  load_queries<D, int8_t>(p, now.sequence, all.head, q);
  Sums<D> sums;
  clear(sums);
  for (int step = all.begin; step < all.end; ++step) {
    const bool more = step + 1 < all.end, ends = !more || next.sequence != now.sequence;
    const Place following = all.place(step + 2, next);
    const Staged<D>& here = staged[(step - all.begin) % kAhead];
    cuda::wait_for_copies<kAhead - 1>();
    if (now.last >= 0) {
      float scores[kScores<int8_t>];
      Keys<D, int8_t> k;
      read_keys(here, now.last, k);
      multiply_keys<D>(q, k, scores);
      all.weigh_at(now, q.factor, scores, sums);
      Values<D, int8_t> v;
      read_values(here, now.last, v);
      add_values<D>(v, scores, rows_of(p), sums);
    }
    if constexpr (kHeads > 1) hold_pace<Form<int8_t, kHeads>>();
    copy(following, step + kAhead);
    if (ends) {
      all.finish_sequence(now, sums);
      if (more) load_queries<D, int8_t>(p, next.sequence, all.head, q);
    }
    now = next;
    next = following;
  }
}

template <int D, class F>
__global__ void __launch_bounds__(F::kThreads, F::kBlocksAProcessor)
    decode_attention(const __grid_constant__ Parameters p) {
  __shared__ __align__(16) Shared<D, F> shared;
  cuda::let_next_start();  // the projection of o, which reads weights alone before it waits
  make_plan<F>(p, shared.plan);
  if (blockIdx.x / head_groups<F>(p) >= shared.plan.ranges) {
    cuda::wait_for_inputs();  // as whoever runs after the next kernel relies on
    return;
  }
  attend(Range<D, F>(p, shared));
}

template <int D, class F>
void launch(Parameters& parameters, void* stream) {
  const auto groups = static_cast<int>(parameters.args.kv_heads) / F::kHeads;
  const int ranges = cuda::processors() * F::kBlocksAProcessor / groups;
  parameters.most_ranges = ranges < 1               ? 1
                           : ranges > kDecodeRanges ? static_cast<int>(kDecodeRanges)
                                                    : ranges;
  const auto kernel = decode_attention<D, F>;
  int bytes = 0;
  if constexpr (sizeof(typename F::T) == 1) {
    bytes = F::kWarps * kAhead * static_cast<int>(sizeof(Staged<D>));
    cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, bytes);
  }
  cuda::launch_overlapped(kernel, dim3(parameters.most_ranges * groups), F::kThreads, bytes, stream,
                          parameters);
}

template <int D>
void launch(Parameters& parameters, void* stream) {
  if (!parameters.args.key_scales) {
    launch<D, Form<Bf16, 1>>(parameters, stream);
  } else if (parameters.args.kv_heads % kInt8Heads == 0) {
    launch<D, Form<int8_t, kInt8Heads>>(parameters, stream);
  } else {
    launch<D, Form<int8_t, 1>>(parameters, stream);
  }
}

__global__ void newest_rows(const NewestRowsLaunch p) {
  cuda::wait_for_inputs();
  cuda::let_next_start();
  const int64_t i = int64_t{blockIdx.x} * kRowsThreads + threadIdx.x, sequence = i / p.tokens;
  if (sequence >= p.sequences) return;
  const int64_t length = p.lengths[sequence], token = length - p.tokens + i % p.tokens;
  p.rows[i] = length == 0
                  ? -1
                  : p.block_table[sequence * p.max_blocks + token / p.block_size] * p.block_size +
                        token % p.block_size;
}

}  // namespace

void launch_newest_rows(const NewestRowsLaunch& args, void* stream) {
  const int64_t blocks = (args.sequences * args.tokens + kRowsThreads - 1) / kRowsThreads;
  if (blocks == 0) return;
  cuda::launch_overlapped(newest_rows, dim3(static_cast<unsigned>(blocks)), kRowsThreads, 0, stream,
                          args);
  check_launch("newest_rows");
}

void launch_decode_attention(const DecodeAttentionLaunch& args, void* stream) {
  if (args.sequences == 0) return;
  Parameters parameters{args, 0, 0};
  while ((int64_t{1} << parameters.block_shift) < args.block_size) ++parameters.block_shift;
  args.head_dim == 64 ? launch<64>(parameters, stream) : launch<128>(parameters, stream);
  check_launch("decode_attention");
}

}  // namespace halo
