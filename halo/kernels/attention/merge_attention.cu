// Parts of attention added up. Bound by memory: every part is read once, 8 columns a thread.
#include "halo/kernels/attention/merge_attention_launch.h"
#include "halo/kernels/cuda/elements.cuh"

namespace halo {
namespace {

using cuda::kWide;
using cuda::load;
using cuda::store;

constexpr int kThreads = 256;

template <class T>
__global__ void __launch_bounds__(kThreads) merge_attention(const MergeAttentionLaunch p) {
  const int64_t at = (int64_t{blockIdx.x} * kThreads + threadIdx.x) * kWide;
  const int64_t row = at / p.columns;  // of a query and a head
  if (row >= p.rows * p.heads) return;
  const int64_t query = row / p.heads, head = row % p.heads;
  float logs[kMostMergedParts];
  const int64_t place = head * p.rows + query;
  const float before = p.has_sum ? p.sum_log_sums[place] : -INFINITY;
  float largest = before;
#pragma unroll
  for (int i = 0; i < kMostMergedParts; ++i) {
    logs[i] = i < p.parts ? p.log_sums[i][head * p.strides[i] + query] : -INFINITY;
    largest = fmaxf(largest, logs[i]);
  }
  float weight = expf(before - largest), total = weight;
  float sum[kWide] = {};
  if (p.has_sum) {
    load(p.sum + at, sum);
#pragma unroll
    for (int c = 0; c < kWide; ++c) sum[c] *= weight;
  }
#pragma unroll
  for (int i = 0; i < kMostMergedParts; ++i) {
    if (i >= p.parts) break;
    float o[kWide];
    load(static_cast<const T*>(p.o[i]) + at, o);
    weight = expf(logs[i] - largest);
    total += weight;
#pragma unroll
    for (int c = 0; c < kWide; ++c) sum[c] += weight * o[c];
  }
#pragma unroll
  for (int c = 0; c < kWide; ++c) sum[c] /= total;
  if (p.out) {
    store(sum, static_cast<T*>(p.out) + at);
    return;
  }
  store(sum, p.sum + at);
  if (at % p.columns == 0) p.sum_log_sums[place] = largest + logf(total);
}

}  // namespace

void launch_merge_attention(const MergeAttentionLaunch& args, void* stream) {
  const int64_t threads = args.rows * args.heads * args.columns / kWide;
  if (threads == 0) return;
  const auto blocks = static_cast<unsigned>((threads + kThreads - 1) / kThreads);
  const auto on = static_cast<cudaStream_t>(stream);
  cuda::with_element(args.element, [&](auto zero) {
    merge_attention<decltype(zero)><<<blocks, kThreads, 0, on>>>(args);
  });
  check_launch("merge_attention");
}

}  // namespace halo
