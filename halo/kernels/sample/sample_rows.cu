// Sampling without sorting: a block a row. Tokens are ordered by falling logit, equal ones by id;
// what is asked is always the token at which a running sum, of tokens or of their weights, first
// passes a target. It is found from coarse to fine: 2,048 bins of equal width in the logit, which
// spread what matters, then the bits of the logit, then the ids of equal ones. Weights are
// integers, so that sums have one value in any order.
#include "halo/kernels/cuda/overlap.cuh"
#include "halo/kernels/sample/sample_rows_launch.h"

namespace halo {
namespace {

constexpr int kThreads = 1024, kWarps = kThreads / 32;
constexpr int kBins = 2048;
constexpr float kDeepest = 23;  // e^-23 of the greatest weight, 2^32, rounds to none

using u64 = unsigned long long;

// A running sum's two kinds; that of tokens is kept only where it is asked for.
struct Sums {
  u64 tokens, weight;
};

struct Shared {
  u64 weight[kBins];
  unsigned tokens[kBins];
  Sums warps[kWarps];
  float most[kWarps], sum[kWarps];
  int id[kWarps];
  Sums found;
  int bin;
};

struct Row {
  const float* logits;
  int columns;
  float most, by;  // greatest logit, 1 / temperature
};

// Rises as x falls.
__device__ __forceinline__ unsigned key_of(float x) {
  const unsigned bits = __float_as_uint(x == 0 ? 0.0f : x);
  return bits & 0x80000000u ? bits : 0x7fffffffu - bits;
}

__device__ __forceinline__ float depth_of(const Row& row, float x) {
  return (row.most - x) * row.by;
}

__device__ __forceinline__ int bin_of(const Row& row, float x) {
  const float bin = depth_of(row, x) * (kBins / kDeepest);
  return bin < kBins - 1 ? static_cast<int>(bin) : kBins - 1;
}

__device__ __forceinline__ u64 weight_of(const Row& row, float x) {
  return __float2ull_rn(expf(-depth_of(row, x)) * 0x1p32f);
}

// Exclusive running sums over the block's threads in their order, and what all have together.
__device__ Sums scan_block(Sums x, Sums& all, Shared& shared) {
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  Sums sum = x;
  for (int far = 1; far < 32; far *= 2) {
    const u64 tokens = __shfl_up_sync(~0u, sum.tokens, far);
    const u64 weight = __shfl_up_sync(~0u, sum.weight, far);
    if (lane >= far) {
      sum.tokens += tokens;
      sum.weight += weight;
    }
  }
  if (lane == 31) shared.warps[warp] = sum;
  __syncthreads();
  Sums before{};
  all = {};
  for (int w = 0; w < kWarps; ++w) {
    if (w < warp) {
      before.tokens += shared.warps[w].tokens;
      before.weight += shared.warps[w].weight;
    }
    all.tokens += shared.warps[w].tokens;
    all.weight += shared.warps[w].weight;
  }
  __syncthreads();
  return {before.tokens + sum.tokens - x.tokens, before.weight + sum.weight - x.weight};
}

// Which sum a target is about.
enum class By { kTokens, kWeight };

__device__ __forceinline__ u64 pick(const Sums& sums, By by) {
  return by == By::kTokens ? sums.tokens : sums.weight;
}

// Among the tokens that `bin` gives a bin from 0 on, the one where the running sum first passes the
// target; `before` becomes the sums of all before it. All threads get the same.
template <class Bin>
__device__ int find_bin(const Row& row, By by, u64 target, Sums& before, Shared& shared,
                        const Bin& bin) {
  for (int i = threadIdx.x; i < kBins; i += kThreads) {
    shared.weight[i] = 0;
    shared.tokens[i] = 0;
  }
  if (threadIdx.x == 0) shared.bin = kBins;
  __syncthreads();
  for (int i = threadIdx.x; i < row.columns; i += kThreads) {
    const float x = row.logits[i];
    const int at = bin(x);
    if (at < 0) continue;
    const u64 weight = weight_of(row, x);
    if (by == By::kTokens) atomicAdd(&shared.tokens[at], 1u);
    if (weight > 0) atomicAdd(&shared.weight[at], weight);
  }
  __syncthreads();
  constexpr int kEach = kBins / kThreads;
  Sums mine{}, all;
  for (int i = 0; i < kEach; ++i) {
    mine.tokens += shared.tokens[threadIdx.x * kEach + i];
    mine.weight += shared.weight[threadIdx.x * kEach + i];
  }
  Sums sum = scan_block(mine, all, shared);
  sum.tokens += before.tokens;
  sum.weight += before.weight;
  for (int i = 0; i < kEach; ++i) {
    const int at = threadIdx.x * kEach + i;
    const Sums next{sum.tokens + shared.tokens[at], sum.weight + shared.weight[at]};
    if (pick(sum, by) <= target && target < pick(next, by)) {
      shared.bin = at;
      shared.found = sum;
    }
    sum = next;
  }
  __syncthreads();
  const int found = shared.bin;
  before = shared.found;
  __syncthreads();
  return found;
}

struct Found {
  int token;
  Sums through;  // the running sums with it
};

// The token where the running sum first passes the target, which is below the sum of all.
__device__ Found find_token(const Row& row, By by, u64 target, Shared& shared) {
  Sums before{};
  const int bin =
      find_bin(row, by, target, before, shared, [&](float x) { return bin_of(row, x); });
  unsigned key = 0;
  for (int shift = 22; shift >= 0; shift -= 11) {  // 10, 11 and 11 bits
    const unsigned known = key;
    const int digit = find_bin(row, by, target, before, shared, [&](float x) {
      const unsigned k = key_of(x);
      const bool in = bin_of(row, x) == bin && (shift == 22 || k >> (shift + 11) == known);
      return in ? static_cast<int>(k >> shift & 2047u) : -1;
    });
    key = known << 11 | static_cast<unsigned>(digit);
  }
  // Equal logits, each with the same weight: the nth of them by id.
  const auto is_equal = [&](int i) { return key_of(row.logits[i]) == key; };
  const int each = (row.columns + kThreads - 1) / kThreads;
  const int begin = threadIdx.x * each, end = min(begin + each, row.columns);
  u64 mine = 0;
  float logit = row.most;
  for (int i = begin; i < end; ++i) {
    if (!is_equal(i)) continue;
    ++mine;
    logit = row.logits[i];
  }
  Sums all;
  const u64 earlier = scan_block({mine, 0}, all, shared).tokens;
  const u64 left = target - pick(before, by);
  if (mine > 0) {
    const u64 weight = weight_of(row, logit);
    const u64 nth = by == By::kTokens ? left : left / weight;
    if (earlier <= nth && nth < earlier + mine) {
      u64 seen = earlier;
      int i = begin;
      for (;; ++i) {
        if (is_equal(i) && seen++ == nth) break;
      }
      shared.bin = i;
      shared.found = {before.tokens + nth + 1, before.weight + (nth + 1) * weight};
    }
  }
  __syncthreads();
  const Found found{shared.bin, shared.found};
  __syncthreads();
  return found;
}

// Greatest logit, its lowest id, and the sum of e^(x - greatest).
struct Greatest {
  float most, sum;
  int id;
};

__device__ __forceinline__ Greatest join(const Greatest& a, const Greatest& b) {
  const bool first = a.most > b.most || (a.most == b.most && a.id <= b.id);
  const Greatest &high = first ? a : b, &low = first ? b : a;
  return {high.most, high.sum + (low.sum > 0 ? low.sum * expf(low.most - high.most) : 0), high.id};
}

__device__ Greatest find_greatest(const float* logits, int columns, Shared& shared) {
  Greatest mine{-INFINITY, 0, columns};
  for (int i = threadIdx.x; i < columns; i += kThreads) {
    const float x = logits[i];
    if (x > mine.most) {
      mine.sum = mine.sum > 0 ? mine.sum * expf(mine.most - x) + 1 : 1;
      mine.most = x;
      mine.id = i;
    } else if (x > -INFINITY) {
      mine.sum += expf(x - mine.most);
    }
  }
  const auto fold = [](Greatest x) {
    for (int far = 16; far > 0; far /= 2) {
      x = join(x, {__shfl_xor_sync(~0u, x.most, far), __shfl_xor_sync(~0u, x.sum, far),
                   __shfl_xor_sync(~0u, x.id, far)});
    }
    return x;
  };
  mine = fold(mine);
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  if (lane == 0) {
    shared.most[warp] = mine.most;
    shared.sum[warp] = mine.sum;
    shared.id[warp] = mine.id;
  }
  __syncthreads();
  mine = fold({shared.most[lane], shared.sum[lane], shared.id[lane]});
  __syncthreads();
  return mine;
}

// Philox4x32-10, as halo/base/random.cc.
__device__ u64 philox_bits(u64 key, u64 step, u64 index) {
  unsigned c[4] = {static_cast<unsigned>(index), static_cast<unsigned>(index >> 32),
                   static_cast<unsigned>(step), static_cast<unsigned>(step >> 32)};
  unsigned k[2] = {static_cast<unsigned>(key), static_cast<unsigned>(key >> 32)};
  for (int round = 0; round < 10; ++round) {
    const u64 a = u64{0xD2511F53u} * c[0], b = u64{0xCD9E8D57u} * c[2];
    c[0] = static_cast<unsigned>(b >> 32) ^ c[1] ^ k[0];
    c[1] = static_cast<unsigned>(b);
    c[2] = static_cast<unsigned>(a >> 32) ^ c[3] ^ k[1];
    c[3] = static_cast<unsigned>(a);
    k[0] += 0x9E3779B9u;
    k[1] += 0xBB67AE85u;
  }
  return c[0] | u64{c[1]} << 32;
}

// Weight of the tokens whose own is at least `least`.
__device__ u64 weight_from(const Row& row, u64 least, Shared& shared) {
  Sums mine{}, all;
  for (int i = threadIdx.x; i < row.columns; i += kThreads) {
    const u64 weight = weight_of(row, row.logits[i]);
    if (weight >= least) mine.weight += weight;
  }
  scan_block(mine, all, shared);
  return all.weight;
}

__global__ void __launch_bounds__(kThreads)
    sample_rows(const __grid_constant__ SampleRowsLaunch p) {
  __shared__ Shared shared;
  cuda::wait_for_inputs();
  cuda::let_next_start();
  const int64_t r = blockIdx.x;
  const float* logits = p.logits + r * p.columns;
  const auto columns = static_cast<int>(p.columns);
  const Greatest greatest = find_greatest(logits, columns, shared);
  int token = greatest.id;
  const float temperature = p.temperature[r];
  if (temperature > 0) {
    const Row row{logits, columns, greatest.most, 1 / temperature};
    u64 kept = weight_from(row, __float2ull_rn(p.min_p[r] * 0x1p32f), shared);
    const int64_t top_k = p.top_k[r];
    if (0 < top_k && top_k < columns) {
      const u64 weight = find_token(row, By::kTokens, top_k - 1, shared).through.weight;
      kept = weight < kept ? weight : kept;
    }
    const float top_p = p.top_p[r];
    if (top_p < 1) {
      const u64 wanted = __double2ull_ru(static_cast<double>(top_p) * static_cast<double>(kept));
      const u64 target = wanted > 0 ? wanted - 1 : 0;
      kept = find_token(row, By::kWeight, target, shared).through.weight;
    }
    const u64 u = philox_bits(p.streams[2 * r], p.streams[2 * r + 1], p.positions[r]) >> 40;
    // floor(kept u / 2^24) without the product's high bits.
    const u64 target = (kept >> 24) * u + ((kept & 0xffffff) * u >> 24);
    token = find_token(row, By::kWeight, target, shared).token;
  }
  if (threadIdx.x != 0) return;
  p.tokens[r] = token;
  p.log_probabilities[r] = logits[token] - greatest.most - logf(greatest.sum);
}

}  // namespace

void launch_sample_rows(const SampleRowsLaunch& args, void* stream) {
  if (args.rows == 0) return;
  cuda::launch_overlapped(sample_rows, dim3(static_cast<unsigned>(args.rows)), kThreads, 0, stream,
                          args);
  check_launch("sample_rows");
}

}  // namespace halo
