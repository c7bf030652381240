// How decode_attention shares out the tokens of all sequences among its blocks, and where they are
// stored. Device code.
#pragma once

#include "halo/kernels/attention/decode_attention_launch.h"
#include "halo/kernels/attention/decode_tokens.cuh"

namespace halo::decode {

constexpr int kFewestTokens = 128;  // of a range

// How keys and values of type T are shared out: a block takes the same tokens of kHeads key heads.
template <class Type, int kHeadsOfBlock>
struct Form {
  using T = Type;
  static constexpr int kHeads = kHeadsOfBlock, kWarpsAHead = 4, kWarps = kHeads * kWarpsAHead;
  static constexpr int kThreads = 32 * kWarps, kBlocksAProcessor = 8 / kWarps;
  static constexpr int kStep = kWarpsAHead * kGroup<T>;  // tokens a block takes at a time
};

struct Parameters {
  DecodeAttentionLaunch args;
  int most_ranges;  // of a key head
  int block_shift;
};

__device__ __forceinline__ int ceil_div(int a, int b) {
  return (a + b - 1) / b;
}

// How the sequences lie one after another, in steps, and how those are cut into ranges.
template <int kThreads>
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

template <class F>
__device__ void make_plan(const Parameters& p, Plan<F::kThreads>& plan) {
  constexpr int kThreads = F::kThreads, kStep = F::kStep, kFewestSteps = kFewestTokens / kStep;
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

// Element offset of the first row of a group of tokens in the pool.
__device__ __forceinline__ int64_t row_of(const Parameters& p, int64_t block, int token) {
  const int64_t within = token & (static_cast<int>(p.args.block_size) - 1);
  return ((block << p.block_shift) + within) * p.args.kv_heads * p.args.head_dim;
}

// Where the scale of the first of them is among all.
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

template <class F>
__device__ __forceinline__ Place place_of(const Parameters& p, const Plan<F::kThreads>& plan,
                                          int step, int sequence) {
  constexpr int kTokens = kGroup<typename F::T>;
  while (step >= plan.firsts[sequence + 1]) ++sequence;
  Place at;
  at.sequence = sequence;
  at.token = (step - plan.firsts[sequence]) * F::kStep +
             static_cast<int>(threadIdx.x) / 32 % F::kWarpsAHead * kTokens;
  at.last = min(plan.lengths[sequence] - 1 - at.token, kTokens - 1);
  at.block = at.last < 0
                 ? 0
                 : p.args.block_table[sequence * p.args.max_blocks + (at.token >> p.block_shift)];
  return at;
}

}  // namespace halo::decode
