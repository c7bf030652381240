// The newest token of sequences against all that is stored, on the CPU: keys and values are read
// once, where they lie, for all query heads that share them. A sequence is cut into parts of a
// fixed length, whose sums are then put together: its bits depend on it alone.
#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "ATen/ATen.h"
#include "ATen/Parallel.h"
#include "halo/kernels/attention/attention_forms.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "halo/kernels/attention/attention_decode_cpu.cc"
#include "hwy/foreach_target.h"
// After foreach_target.h: these are read once a target.
#include "halo/kernels/cpu/columns-inl.h"
#include "halo/kernels/cpu/load-inl.h"

#ifndef HALO_KERNELS_ATTENTION_DECODE_PART_
#define HALO_KERNELS_ATTENTION_DECODE_PART_
namespace halo {

constexpr int64_t kPartTokens = 256;
constexpr int64_t kTileTokens = 64;  // whose logits there are at a time

// Tokens begin .. end-1 of one sequence, for the query heads of one key/value head.
template <class T>  // float or hwy::bfloat16_t
struct DecodePart {
  const float* q;          // [heads, d]
  const T *keys, *values;  // of the head, in the first block
  int64_t row;             // numbers from a token to the next
  const int64_t* blocks;
  int64_t block_size, begin, end, heads, d;
  float scale;
  float* out;  // [heads, d + 2]: sums of values, the largest logit, the sum of weights
};

}  // namespace halo
#endif

HWY_BEFORE_NAMESPACE();
namespace halo {
namespace HWY_NAMESPACE {

// x = exp(x - most); returns the sum.
HWY_INLINE float weights_of(float* x, int64_t n, float most) {
  return sum_columns(n, [&](auto d, int64_t c) HWY_ATTR {
    const auto v = hn::Sub(hn::LoadU(d, x + c), hn::Set(d, most));
    const auto y = hn::IfThenElse(hn::IsNaN(v), v, hn::Exp(d, v));  // Exp loses NaN
    hn::StoreU(y, d, x + c);
    return y;
  });
}

// out = factor * out + sum over n tokens of weights times values.
template <class T>
HWY_INLINE void add_values(const float* weights, const T* values, int64_t row, int64_t n, int64_t d,
                           float factor, float* out) {
  for_columns(d, [&](auto tag, int64_t c) HWY_ATTR {
    auto sum = hn::Mul(hn::LoadU(tag, out + c), hn::Set(tag, factor));
    for (int64_t t = 0; t < n; ++t) {
      sum = hn::MulAdd(hn::Set(tag, weights[t]), load(tag, values + t * row + c), sum);
    }
    hn::StoreU(sum, tag, out + c);
  });
}

template <class T>
HWY_INLINE void run_part(const DecodePart<T>& p) {
  std::vector<float> logits(p.heads * kTileTokens);
  const int64_t width = p.d + 2;
  for (int64_t h = 0; h < p.heads; ++h) {
    float* out = p.out + h * width;
    std::fill(out, out + width, 0.0F);
    out[p.d] = -std::numeric_limits<float>::infinity();
  }
  for (int64_t t = p.begin, n = 0; t < p.end; t += n) {
    const int64_t inside = t % p.block_size;
    n = std::min({kTileTokens, p.end - t, p.block_size - inside});
    const int64_t first = (p.blocks[t / p.block_size] * p.block_size + inside) * p.row;
    for (int64_t i = 0; i < n; ++i) {
      const T* key = p.keys + first + i * p.row;
      for (int64_t h = 0; h < p.heads; ++h) {
        const float* q = p.q + h * p.d;
        logits[h * kTileTokens + i] = p.scale * sum_columns(p.d, [&](auto tag, int64_t c) HWY_ATTR {
                                        return hn::Mul(hn::LoadU(tag, q + c), load(tag, key + c));
                                      });
      }
    }
    for (int64_t h = 0; h < p.heads; ++h) {
      float *x = &logits[h * kTileTokens], *out = p.out + h * width;
      float &most = out[p.d], &sum = out[p.d + 1];
      const float before = most;
      most = std::max(before, *std::max_element(x, x + n));
      const float factor = before == most ? 1 : std::exp(before - most);
      sum = sum * factor + weights_of(x, n, most);
      add_values(x, p.values + first, p.row, n, p.d, factor, out);
    }
  }
}

void decode_part(const DecodePart<float>& part) {
  run_part(part);
}
void decode_part_bf16(const DecodePart<hwy::bfloat16_t>& part) {
  run_part(part);
}

}  // namespace HWY_NAMESPACE
}  // namespace halo
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace halo {
namespace {

HWY_EXPORT(decode_part);
HWY_EXPORT(decode_part_bf16);

void run(const DecodePart<float>& part) {
  HWY_DYNAMIC_DISPATCH(decode_part)(part);
}
void run(const DecodePart<hwy::bfloat16_t>& part) {
  HWY_DYNAMIC_DISPATCH(decode_part_bf16)(part);
}

// parts [count, d + 2] of one query head, `stride` apart, to its result.
void put_together(const float* parts, int64_t count, int64_t stride, int64_t d, float* out) {
  float most = -std::numeric_limits<float>::infinity(), sum = 0;
  for (int64_t p = 0; p < count; ++p) most = std::max(most, parts[p * stride + d]);
  std::fill(out, out + d, 0.0F);
  for (int64_t p = 0; p < count; ++p) {
    const float* part = parts + p * stride;
    const float factor = std::exp(part[d] - most);
    sum += factor * part[d + 1];
    for (int64_t c = 0; c < d; ++c) out[c] += factor * part[c];
  }
  for (int64_t c = 0; c < d; ++c) out[c] /= sum;
}

template <class T>
at::Tensor decode(const at::Tensor& q, const PagedKeyValue& cache,
                  const std::vector<int64_t>& which, double scale) {
  const int64_t groups = cache.keys.size(2), d = q.size(2), heads = q.size(1) / groups;
  struct Task {
    int64_t row, group, begin, end;
    int64_t part;  // among all
  };
  std::vector<Task> tasks;
  std::vector<int64_t> first_part;  // of each row and group
  for (size_t s = 0; s < which.size(); ++s) {
    const int64_t length = cache.lengths[which[s]];
    for (int64_t g = 0; g < groups; ++g) {
      first_part.push_back(std::ssize(tasks));
      for (int64_t begin = 0; begin < length; begin += kPartTokens) {
        tasks.push_back({static_cast<int64_t>(s), g, begin, std::min(begin + kPartTokens, length),
                         std::ssize(tasks)});
      }
    }
  }
  first_part.push_back(std::ssize(tasks));
  const int64_t stride = heads * (d + 2);
  const at::Tensor parts = at::empty({std::ssize(tasks), stride}, q.options());
  at::Tensor out = at::empty_like(q);
  const auto table = cache.block_table.accessor<int64_t, 2>();
  const auto* keys = static_cast<const T*>(cache.keys.const_data_ptr());
  const auto* values = static_cast<const T*>(cache.values.const_data_ptr());
  const float* queries = q.const_data_ptr<float>();
  float *sums = parts.mutable_data_ptr<float>(), *results = out.mutable_data_ptr<float>();
  at::parallel_for(0, std::ssize(tasks), /*grain_size=*/1, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      const Task& task = tasks[i];
      run(DecodePart<T>{.q = queries + (task.row * groups + task.group) * heads * d,
                        .keys = keys + task.group * d,
                        .values = values + task.group * d,
                        .row = groups * d,
                        .blocks = table[which[task.row]].data(),
                        .block_size = cache.keys.size(1),
                        .begin = task.begin,
                        .end = task.end,
                        .heads = heads,
                        .d = d,
                        .scale = static_cast<float>(scale),
                        .out = sums + task.part * stride});
    }
  });
  for (size_t i = 0; i + 1 < first_part.size(); ++i) {
    for (int64_t h = 0; h < heads; ++h) {
      put_together(sums + first_part[i] * stride + h * (d + 2), first_part[i + 1] - first_part[i],
                   stride, d, results + (static_cast<int64_t>(i) * heads + h) * d);
    }
  }
  return out;
}

}  // namespace

at::Tensor attention_decode_cpu(const at::Tensor& q, const PagedKeyValue& cache,
                                const std::vector<int64_t>& which, double scale) {
  return cache.keys.scalar_type() == at::kBFloat16 ? decode<hwy::bfloat16_t>(q, cache, which, scale)
                                                   : decode<float>(q, cache, which, scale);
}

}  // namespace halo
#endif
