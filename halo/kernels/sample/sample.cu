// A draw a row, a block each, without sorting the row. Where the running sum of the sorted tokens
// passes a number (README.md, steps 2 to 5) is found by a histogram of the logits: the bin in which
// the sum passes is read again, and its few tokens alone are sorted. A token's share of the
// distribution, its mass, is an integer: 2^44 times its probability over that of the likeliest. So
// sums have no order, and the same row gives the same token every time.
#include <cuda_runtime_api.h>

#include "halo/kernels/sample/sample_launch.h"

namespace halo {
namespace {

constexpr int kThreads = 1024, kWarps = kThreads / 32;
constexpr int kBins = 2 * kThreads;    // the last one: what has no mass
constexpr int kListed = 2 * kThreads;  // tokens that are sorted, at most
constexpr int kParts = kThreads;       // of a bin that has more
constexpr double kMassBits = 44;

using Mass = unsigned long long;

struct Histogram {
  Mass masses[kBins];
  unsigned counts[kBins];
};

struct Shared {
  Histogram bins;
  union {
    unsigned long long listed[kListed];  // ordering key, then id
    struct {
      Mass masses[kParts];
      unsigned counts[kParts];
    } parts;
  };
  Mass scan[kWarps];
  Mass before, found;  // sums before the bin or token that was looked for; the token's
  int place;
  unsigned count, low, high;
  float max;
  int max_id;
};

// Falls as the logit grows.
__device__ unsigned key_of(float logit) {
  const unsigned bits = __float_as_uint(logit + 0.0f);  // -0 is 0
  return bits & 0x80000000u ? bits : ~bits & 0x7FFFFFFFu;
}

__device__ float logit_of(unsigned key) {
  return __uint_as_float(key & 0x80000000u ? key : ~key & 0x7FFFFFFFu);
}

// The row and what is known of it from the first pass on.
struct Row {
  const float* logits;
  int vocabulary;
  float max;
  double rate;  // of powers of two a logit
  float bins_a_logit;

  __device__ Mass mass(float logit) const {
    const double power = (static_cast<double>(logit) - static_cast<double>(max)) * rate;
    if (!(power >= -kMassBits - 1)) return 0;
    const double whole = floor(power);
    const float part = exp2f(static_cast<float>(power - whole));  // [1, 2]
    return __float2ull_rn(part * 0x1p44f) >> static_cast<int>(-whole);
  }
  __device__ int bin(float logit) const {
    return static_cast<int>(fminf((max - logit) * bins_a_logit, static_cast<float>(kBins - 1)));
  }
};

// The sum of all threads' x before this one's. Two barriers.
__device__ Mass sum_before(Mass x, Mass (&scan)[kWarps]) {
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  Mass sum = x;
  for (int near = 1; near < 32; near *= 2) {
    const Mass other = __shfl_up_sync(~0u, sum, near);
    if (lane >= near) sum += other;
  }
  __syncthreads();
  if (lane == 31) scan[warp] = sum;
  __syncthreads();
  Mass warps = 0;
  for (int w = 0; w < warp; ++w) warps += scan[w];
  return warps + sum - x;
}

// By what tokens are looked for: the first whose running sum, itself included, is above a number.
enum class By { kCount, kMass };

template <By by>
__device__ Mass measure(Mass mass, unsigned count) {
  return by == By::kMass ? mass : count;
}

// In s.place the first of n <= 2 kThreads whose running sum of `get` passes the target; in s.before
// the sum before it.
template <class Get>
__device__ void find_place(Shared& s, Mass start, Mass target, int n, Get get) {
  const int first = 2 * threadIdx.x;
  const Mass a = first < n ? get(first) : 0, b = first + 1 < n ? get(first + 1) : 0;
  const Mass before = start + sum_before(a + b, s.scan);
  if (before <= target && target < before + a + b) {
    const bool second = target >= before + a;
    s.place = first + second;
    s.before = second ? before + a : before;
  }
  __syncthreads();
}

// Sorts s.listed[0 .. n), n a power of two, ascending.
__device__ void sort_listed(Shared& s, int n) {
  for (int size = 2; size <= n; size *= 2) {
    for (int far = size / 2; far > 0; far /= 2) {
      __syncthreads();
      for (int t = threadIdx.x; t < n / 2; t += kThreads) {
        const int i = 2 * t - t % far, j = i + far;
        const bool rises = (i & size) == 0;
        const auto x = s.listed[i], y = s.listed[j];
        if ((x > y) == rises) {
          s.listed[i] = y;
          s.listed[j] = x;
        }
      }
    }
  }
  __syncthreads();
}

struct Found {
  int id;
  Mass sum;  // of masses up to this token and with it
};

// Among equal logits the one of rank `rank`, in order of ids.
__device__ int id_of_equal(const Row& row, Shared& s, unsigned key, Mass rank) {
  const int each = (row.vocabulary + kThreads - 1) / kThreads;
  const int begin = min(static_cast<int>(threadIdx.x) * each, row.vocabulary);
  const int end = min(begin + each, row.vocabulary);
  Mass own = 0;
  for (int i = begin; i < end; ++i) own += key_of(row.logits[i]) == key;
  Mass before = sum_before(own, s.scan);
  if (before <= rank && rank < before + own) {
    for (int i = begin; i < end; ++i) {
      if (key_of(row.logits[i]) != key) continue;
      if (before++ == rank) s.place = i;
    }
  }
  __syncthreads();
  const int place = s.place;
  __syncthreads();
  return place;
}

// The first token whose running sum passes the target, which the sum of all does.
template <By by>
__device__ Found find(const Row& row, Shared& s, Mass target) {
  // The bin; masses before it too, where it is found by count.
  find_place(s, 0, target, kBins,
             [&](int i) { return measure<by>(s.bins.masses[i], s.bins.counts[i]); });
  const int bin = s.place;
  Mass before = s.before;
  unsigned count = s.bins.counts[bin];
  const Mass own = 2 * threadIdx.x < bin ? s.bins.masses[2 * threadIdx.x] : 0;
  const Mass next = 2 * threadIdx.x + 1 < bin ? s.bins.masses[2 * threadIdx.x + 1] : 0;
  const Mass masses = sum_before(own + next, s.scan) + own + next;
  if (threadIdx.x == kThreads - 1) s.found = masses;
  __syncthreads();
  Mass mass_before = s.found;
  // Its tokens' keys lie in low .. high; while they are too many, in a part of them.
  unsigned low = 0, high = ~0u;
  const auto belongs = [&](float logit) {
    const unsigned key = key_of(logit);
    return low <= key && key <= high && row.bin(logit) == bin && row.mass(logit) > 0;
  };
  while (count > kListed) {
    if (threadIdx.x == 0) {
      s.low = ~0u;
      s.high = 0;
    }
    for (int i = threadIdx.x; i < kParts; i += kThreads) {
      s.parts.masses[i] = 0;
      s.parts.counts[i] = 0;
    }
    __syncthreads();
    unsigned least = ~0u, most = 0;
    for (int i = threadIdx.x; i < row.vocabulary; i += kThreads) {
      if (!belongs(row.logits[i])) continue;
      least = min(least, key_of(row.logits[i]));
      most = max(most, key_of(row.logits[i]));
    }
    atomicMin(&s.low, least);
    atomicMax(&s.high, most);
    __syncthreads();
    low = s.low;
    high = s.high;
    if (low == high) {
      const Mass each = row.mass(logit_of(low));
      const Mass rank = by == By::kMass ? (target - before) / each : target - before;
      return {id_of_equal(row, s, low, rank), mass_before + (rank + 1) * each};
    }
    int shift = 0;
    while ((high - low) >> shift >= kParts) ++shift;
    for (int i = threadIdx.x; i < row.vocabulary; i += kThreads) {
      const float logit = row.logits[i];
      if (!belongs(logit)) continue;
      const unsigned part = (key_of(logit) - low) >> shift;
      atomicAdd(&s.parts.masses[part], row.mass(logit));
      atomicAdd(&s.parts.counts[part], 1u);
    }
    __syncthreads();
    find_place(s, before, target, kParts,
               [&](int i) { return measure<by>(s.parts.masses[i], s.parts.counts[i]); });
    const int part = s.place;
    before = s.before;
    count = s.parts.counts[part];
    const Mass of_part = threadIdx.x < part ? s.parts.masses[threadIdx.x] : 0;
    const Mass sum = sum_before(of_part, s.scan) + of_part;
    if (threadIdx.x == kThreads - 1) s.found = sum;
    __syncthreads();
    mass_before += s.found;
    low += static_cast<unsigned>(part) << shift;
    high = low + min(high - low, (1u << shift) - 1);
    __syncthreads();
  }
  // Those tokens, sorted.
  int padded = 2;
  while (padded < count) padded *= 2;
  if (threadIdx.x == 0) s.count = 0;
  for (int i = threadIdx.x; i < padded; i += kThreads) s.listed[i] = ~0ull;
  __syncthreads();
  for (int i = threadIdx.x; i < row.vocabulary; i += kThreads) {
    const float logit = row.logits[i];
    if (!belongs(logit)) continue;
    s.listed[atomicAdd(&s.count, 1u)] =
        static_cast<Mass>(key_of(logit)) << 32 | static_cast<unsigned>(i);
  }
  sort_listed(s, padded);
  const auto mass_of = [&](int i) {
    return i < count ? row.mass(logit_of(static_cast<unsigned>(s.listed[i] >> 32))) : 0;
  };
  find_place(s, before, target, padded, [&](int i) { return measure<by>(mass_of(i), i < count); });
  const int place = s.place;
  const Mass a = 2 * threadIdx.x <= place ? mass_of(2 * threadIdx.x) : 0;
  const Mass b = 2 * threadIdx.x + 1 <= place ? mass_of(2 * threadIdx.x + 1) : 0;
  const Mass sum = sum_before(a + b, s.scan) + a + b;
  if (threadIdx.x == kThreads - 1) s.found = sum;
  __syncthreads();
  const Found found{static_cast<int>(static_cast<unsigned>(s.listed[place])),
                    mass_before + s.found};
  __syncthreads();
  return found;
}

// The row's largest logit, the lowest id of equal ones.
__device__ void find_max(const float* logits, int vocabulary, Shared& s) {
  unsigned long long best = ~0ull;
  for (int i = threadIdx.x; i < vocabulary; i += kThreads) {
    if (isnan(logits[i])) continue;
    best = min(best,
               static_cast<unsigned long long>(key_of(logits[i])) << 32 | static_cast<unsigned>(i));
  }
  for (int far = 16; far > 0; far /= 2) best = min(best, __shfl_xor_sync(~0u, best, far));
  if (threadIdx.x % 32 == 0) s.scan[threadIdx.x / 32] = best;
  __syncthreads();
  if (threadIdx.x == 0) {
    for (int w = 1; w < kWarps; ++w) best = min(best, s.scan[w]);
    s.max = best == ~0ull ? NAN : logit_of(static_cast<unsigned>(best >> 32));
    s.max_id = best == ~0ull ? 0 : static_cast<int>(static_cast<unsigned>(best));
  }
  __syncthreads();
}

__global__ void __launch_bounds__(kThreads) sample(const SampleLaunch p) {
  __shared__ Shared s;
  const SampleSettings settings = p.settings[blockIdx.x];
  const float* logits = p.logits + int64_t{blockIdx.x} * p.vocabulary;
  const auto vocabulary = static_cast<int>(p.vocabulary);
  find_max(logits, vocabulary, s);
  // A row without numbers has no draw; whoever asks looks at its logits.
  if (settings.temperature == 0 || !isfinite(s.max)) {
    if (threadIdx.x == 0) p.tokens[blockIdx.x] = s.max_id;
    return;
  }
  constexpr double kLog2E = 1.4426950408889634;
  const double rate = fmin(kLog2E / settings.temperature, 1e30);
  const Row row{logits, vocabulary, s.max, rate,
                static_cast<float>(rate * (kBins - 1) / (kMassBits + 2))};
  for (int i = threadIdx.x; i < kBins; i += kThreads) {
    s.bins.masses[i] = 0;
    s.bins.counts[i] = 0;
  }
  const Mass least = max(Mass{1}, static_cast<Mass>(ceil(settings.min_p * 0x1p44)));
  Mass near = 0;  // of those with a mass of `least`
  __syncthreads();
  for (int i = threadIdx.x; i < vocabulary; i += kThreads) {
    const Mass mass = row.mass(logits[i]);
    if (mass == 0) continue;
    if (mass >= least) near += mass;
    const int bin = row.bin(logits[i]);
    atomicAdd(&s.bins.masses[bin], mass);
    atomicAdd(&s.bins.counts[bin], 1u);
  }
  const Mass near_before = sum_before(near, s.scan);
  if (threadIdx.x == kThreads - 1) s.found = near_before + near;
  __syncthreads();
  Mass kept = s.found;  // by min_p, of all
  const Mass own = s.bins.masses[2 * threadIdx.x] + s.bins.masses[2 * threadIdx.x + 1];
  const unsigned own_count = s.bins.counts[2 * threadIdx.x] + s.bins.counts[2 * threadIdx.x + 1];
  const Mass own_before = sum_before(own, s.scan);
  if (threadIdx.x == kThreads - 1) s.found = own_before + own;
  const Mass count_before = sum_before(own_count, s.scan);
  if (threadIdx.x == kThreads - 1) s.count = static_cast<unsigned>(count_before) + own_count;
  __syncthreads();
  Mass all = s.found;
  const unsigned count = s.count;
  __syncthreads();
  if (settings.top_k > 0 && settings.top_k < count) {
    all = find<By::kCount>(row, s, static_cast<Mass>(settings.top_k) - 1).sum;
  }
  kept = min(kept, all);
  if (settings.top_p < 1) {
    const auto wanted = static_cast<Mass>(ceil(settings.top_p * static_cast<double>(all)));
    kept = min(kept, find<By::kMass>(row, s, min(max(wanted, Mass{1}), all) - 1).sum);
  }
  // floor(uniform * kept), exact: both are integers by powers of two.
  const auto uniform = static_cast<Mass>(settings.uniform * 0x1p24) << 40;
  const Found drawn = find<By::kMass>(row, s, __umul64hi(kept, uniform));
  if (threadIdx.x == 0) p.tokens[blockIdx.x] = drawn.id;
}

}  // namespace

void launch_sample(const SampleLaunch& args, void* stream) {
  if (args.rows == 0) return;
  sample<<<static_cast<unsigned>(args.rows), kThreads, 0, static_cast<cudaStream_t>(stream)>>>(
      args);
  check_launch("sample");
}

}  // namespace halo
