// Attention in one order of sums. A query's past is cut into parts of a fixed length, these into
// tiles, whose sums are put together in their order: its bits depend on the query and its past
// alone, wherever that lies, not on the queries beside it, on other sequences or on threads. Keys
// and values are read where they lie, once for all query heads that share them, so on the CPU this
// is also what decoding runs.
#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "ATen/ATen.h"
#include "ATen/Parallel.h"
#include "halo/kernels/attention/attention_forms.h"
#include "halo/kernels/cpu/row_chunks.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "halo/kernels/attention/attention_reference.cc"
#include "hwy/foreach_target.h"
// After foreach_target.h: these are read once a target.
#include "halo/kernels/cpu/columns-inl.h"
#include "halo/kernels/cpu/load-inl.h"

#ifndef HALO_KERNELS_ATTENTION_QUERY_PART_
#define HALO_KERNELS_ATTENTION_QUERY_PART_
namespace halo {

constexpr int64_t kPartTokens = 256;
constexpr int64_t kTileTokens = 64;  // whose logits there are at a time

// What is stored of one sequence for one key/value head.
template <class T>  // float, hwy::bfloat16_t or int8_t
struct StoredHead {
  const T *keys, *values;                  // in block 0
  const float *key_scales, *value_scales;  // likewise; null: there are none
  const int64_t* blocks;
  int64_t block_size, groups, d;
};

// Queries against its tokens begin .. end-1.
template <class T>
struct QueryPart {
  StoredHead<T> stored;
  const float* q;  // [queries, heads, d], the queries q_row floats apart
  int64_t q_row, queries, heads;
  int64_t seen;  // tokens that the first of them sees; every further one sees one more
  int64_t begin, end;
  float scale;
  float* out;  // [queries, heads, d + 2]: sums of values, the largest logit, the sum of weights
};

}  // namespace halo
#endif

HWY_BEFORE_NAMESPACE();
namespace halo {
namespace HWY_NAMESPACE {

// The tokens of a tile, wherever they lie.
template <class T>
struct Tile {
  const T *keys[kTileTokens], *values[kTileTokens];
  float key_scales[kTileTokens], value_scales[kTileTokens];

  HWY_INLINE Tile(const StoredHead<T>& from, int64_t begin, int64_t count) {
    int64_t block = begin / from.block_size, inside = begin % from.block_size;
    for (int64_t i = 0; i < count; ++i) {
      const int64_t at = from.blocks[block], row = at * from.block_size + inside;
      keys[i] = from.keys + row * from.groups * from.d;
      values[i] = from.values + row * from.groups * from.d;
      if (from.key_scales) {
        const int64_t scale = at * from.groups * from.block_size + inside;
        key_scales[i] = from.key_scales[scale];
        value_scales[i] = from.value_scales[scale];
      }
      if (++inside == from.block_size) {
        inside = 0;
        ++block;
      }
    }
  }
};

// x = exp(x - most); returns the sum.
HWY_INLINE float weights_of(float* x, int64_t n, float most) {
  return sum_columns(n, [&](auto d, int64_t c) HWY_ATTR {
    const auto v = hn::Sub(hn::LoadU(d, x + c), hn::Set(d, most));
    const auto y = hn::IfThenElse(hn::IsNaN(v), v, hn::Exp(d, v));  // Exp loses NaN
    hn::StoreU(y, d, x + c);
    return y;
  });
}

HWY_INLINE void multiply(float* x, const float* by, int64_t n) {
  for_columns(n, [&](auto d, int64_t c) HWY_ATTR {
    hn::StoreU(hn::Mul(hn::LoadU(d, x + c), hn::LoadU(d, by + c)), d, x + c);
  });
}

// out = factor * out + sum over n tokens of weights times values. A column's sum is a chain, so
// four vectors of columns go side by side.
template <class T>
HWY_INLINE void add_values(const float* weights, const T* const* values, int64_t n, int64_t d,
                           float factor, float* out) {
  const hn::ScalableTag<float> tag;
  const hn::CappedTag<float, 1> one;
  const int64_t lanes = hn::Lanes(tag);
  int64_t c = 0;
  for (; c + 4 * lanes <= d; c += 4 * lanes) {
    const auto by = hn::Set(tag, factor);
    auto sum0 = hn::Mul(hn::LoadU(tag, out + c), by);
    auto sum1 = hn::Mul(hn::LoadU(tag, out + c + lanes), by);
    auto sum2 = hn::Mul(hn::LoadU(tag, out + c + 2 * lanes), by);
    auto sum3 = hn::Mul(hn::LoadU(tag, out + c + 3 * lanes), by);
    for (int64_t t = 0; t < n; ++t) {
      const T* value = values[t] + c;
      const auto weight = hn::Set(tag, weights[t]);
      sum0 = hn::MulAdd(weight, load(tag, value), sum0);
      sum1 = hn::MulAdd(weight, load(tag, value + lanes), sum1);
      sum2 = hn::MulAdd(weight, load(tag, value + 2 * lanes), sum2);
      sum3 = hn::MulAdd(weight, load(tag, value + 3 * lanes), sum3);
    }
    hn::StoreU(sum0, tag, out + c);
    hn::StoreU(sum1, tag, out + c + lanes);
    hn::StoreU(sum2, tag, out + c + 2 * lanes);
    hn::StoreU(sum3, tag, out + c + 3 * lanes);
  }
  const auto add = [&](auto d1, int64_t at) HWY_ATTR {
    auto sum = hn::Mul(hn::LoadU(d1, out + at), hn::Set(d1, factor));
    for (int64_t t = 0; t < n; ++t)
      sum = hn::MulAdd(hn::Set(d1, weights[t]), load(d1, values[t] + at), sum);
    hn::StoreU(sum, d1, out + at);
  };
  for (; c + lanes <= d; c += lanes) add(tag, c);
  for (; c < d; ++c) add(one, c);
}

// One query head and the first n tokens of a tile, whose keys' logits but for `scale` are x [n],
// into its `out` of a QueryPart.
template <class T>
HWY_INLINE void add_tile(const Tile<T>& tile, float* x, int64_t n, int64_t d, float scale,
                         bool scaled, float* out) {
  for (int64_t i = 0; i < n; ++i) x[i] *= scale;
  if (scaled) multiply(x, tile.key_scales, n);
  float &most = out[d], &sum = out[d + 1];
  const float before = most;
  most = std::max(before, *std::max_element(x, x + n));
  const float factor = before == most ? 1 : std::exp(before - most);
  sum = sum * factor + weights_of(x, n, most);
  if (scaled) multiply(x, tile.value_scales, n);
  add_values(x, tile.values, n, d, factor, out);
}

// x [heads, kTileTokens] = q [heads, d] times n keys, which are loaded once for all heads; the sums
// are in the order of sum_columns.
template <int kHeads, class T>
HWY_INLINE void multiply_keys(const Tile<T>& tile, const float* q, int64_t n, int64_t d, float* x) {
  const hn::ScalableTag<float> tag;
  const hn::CappedTag<float, 1> one;
  using V = hn::Vec<decltype(tag)>;
  const int64_t lanes = hn::Lanes(tag);
  for (int64_t i = 0; i < n; ++i) {
    const T* key = tile.keys[i];
    V sum[kHeads][4];
#pragma GCC unroll 16
    for (int h = 0; h < kHeads; ++h) sum[h][0] = sum[h][1] = sum[h][2] = sum[h][3] = hn::Zero(tag);
    int64_t c = 0;
    for (; c + 4 * lanes <= d; c += 4 * lanes) {
#pragma GCC unroll 16
      for (int j = 0; j < 4; ++j) {
        const V k = load(tag, key + c + j * lanes);
#pragma GCC unroll 16
        for (int h = 0; h < kHeads; ++h)
          sum[h][j] = hn::Add(sum[h][j], hn::Mul(hn::LoadU(tag, q + h * d + c + j * lanes), k));
      }
    }
    for (; c + lanes <= d; c += lanes) {
      const V k = load(tag, key + c);
#pragma GCC unroll 16
      for (int h = 0; h < kHeads; ++h)
        sum[h][0] = hn::Add(sum[h][0], hn::Mul(hn::LoadU(tag, q + h * d + c), k));
    }
#pragma GCC unroll 16
    for (int h = 0; h < kHeads; ++h) {
      auto tail = hn::Zero(one);
      for (int64_t e = c; e < d; ++e)
        tail = hn::Add(tail, hn::Mul(hn::LoadU(one, q + h * d + e), load(one, key + e)));
      const V total = hn::Add(hn::Add(sum[h][0], sum[h][1]), hn::Add(sum[h][2], sum[h][3]));
      x[h * kTileTokens + i] = hn::GetLane(hn::SumOfLanes(tag, total)) + hn::GetLane(tail);
    }
  }
}

template <class T>
HWY_INLINE void run_part(const QueryPart<T>& p) {
  const int64_t d = p.stored.d, width = d + 2;
  for (int64_t row = 0; row < p.queries * p.heads; ++row) {
    float* out = p.out + row * width;
    std::fill(out, out + width, 0.0F);
    out[d] = -std::numeric_limits<float>::infinity();
  }
  for (int64_t t = p.begin; t < p.end; t += kTileTokens) {
    const int64_t there = std::min(kTileTokens, p.end - t);
    const Tile<T> tile(p.stored, t, there);
    for (int64_t i = 0; i < p.queries; ++i) {
      const int64_t n = std::min(there, p.seen + i - t);
      if (n <= 0) continue;
      for (int64_t h = 0; h < p.heads;) {
        float x[3 * kTileTokens];
        const float* q = p.q + i * p.q_row + h * d;
        const int64_t count = std::min<int64_t>(3, p.heads - h);
        if (count == 3) {
          multiply_keys<3>(tile, q, n, d, x);
        } else if (count == 2) {
          multiply_keys<2>(tile, q, n, d, x);
        } else {
          multiply_keys<1>(tile, q, n, d, x);
        }
        for (int64_t j = 0; j < count; ++j, ++h) {
          add_tile(tile, x + j * kTileTokens, n, d, p.scale, p.stored.key_scales != nullptr,
                   p.out + (i * p.heads + h) * width);
        }
      }
    }
  }
}

void query_part(const QueryPart<float>& part) {
  run_part(part);
}
void query_part_bf16(const QueryPart<hwy::bfloat16_t>& part) {
  run_part(part);
}
void query_part_int8(const QueryPart<int8_t>& part) {
  run_part(part);
}

}  // namespace HWY_NAMESPACE
}  // namespace halo
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace halo {
namespace {

HWY_EXPORT(query_part);
HWY_EXPORT(query_part_bf16);
HWY_EXPORT(query_part_int8);

void run(const QueryPart<float>& part) {
  HWY_DYNAMIC_DISPATCH(query_part)(part);
}
void run(const QueryPart<hwy::bfloat16_t>& part) {
  HWY_DYNAMIC_DISPATCH(query_part_bf16)(part);
}
void run(const QueryPart<int8_t>& part) {
  HWY_DYNAMIC_DISPATCH(query_part_int8)(part);
}

constexpr int64_t kQueries = 16;                 // that go through a part together
constexpr int64_t kMostSums = int64_t{1} << 22;  // floats of parts that are there at a time

// A sequence's queries, and where its tokens are.
struct Reading {
  int64_t begin, count;   // among all queries
  int64_t length;         // tokens that the last of them sees
  const int64_t* blocks;  // of the tokens
  int64_t first_row;      // of block 0
};

// Queries of a reading that go through its parts together.
struct Unit {
  const Reading* reading;
  int64_t group, first, count;
  int64_t parts;
  int64_t sums;  // where theirs are: [parts, count, heads, d + 2]

  int64_t seen() const { return reading->length - reading->count + first + 1; }  // by the first
};

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

const float* data_or_null(const at::Tensor& x) {
  return x.defined() ? x.const_data_ptr<float>() : nullptr;
}

// All queries of a call: q [n, H, d] fp32, contiguous.
template <class T>
class Call {
 public:
  Call(const at::Tensor& q, const KeyValueBlocks& kv, double scale)
      : q_(q),
        out_(at::empty_like(q)),
        groups_(kv.keys.size(2)),
        heads_(q.size(1) / groups_),
        scale_(static_cast<float>(scale)),
        all_{static_cast<const T*>(kv.keys.const_data_ptr()),
             static_cast<const T*>(kv.values.const_data_ptr()),
             data_or_null(kv.key_scales),
             data_or_null(kv.value_scales),
             nullptr,
             kv.keys.size(1),
             groups_,
             q.size(2)} {}

  at::Tensor attend(const std::vector<Reading>& readings) {
    for (const Reading& reading : readings) {
      for (int64_t g = 0; g < groups_; ++g) {
        for (int64_t first = 0; first < reading.count; first += kQueries) {
          Unit unit{&reading, g, first, std::min(kQueries, reading.count - first), 0, sums_};
          unit.parts = (unit.seen() + unit.count - 1 + kPartTokens - 1) / kPartTokens;
          sums_ += unit.parts * unit.count * row_sums();
          units_.push_back(unit);
          if (sums_ > kMostSums) flush();
        }
      }
    }
    flush();
    return out_;
  }

 private:
  int64_t row_sums() const { return heads_ * (all_.d + 2); }

  void flush() {
    struct Task {
      const Unit* unit;
      int64_t part;
    };
    std::vector<Task> tasks;
    int64_t read = 0;  // numbers, for each new token again
    for (const Unit& unit : units_) {
      for (int64_t part = 0; part < unit.parts; ++part) tasks.push_back({&unit, part});
      read += unit.count * (unit.seen() + unit.count) * 2 * all_.d;
    }
    const int64_t bytes = read * static_cast<int64_t>(sizeof(T));
    const at::Tensor scratch = at::empty({sums_}, q_.options());
    float* sums = scratch.mutable_data_ptr<float>();
    const auto parts = std::ssize(tasks), units = std::ssize(units_);
    at::parallel_for(0, parts, task_grain(parts, bytes, heads_), [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) run_task(*tasks[i].unit, tasks[i].part, sums);
    });
    const int64_t sum_bytes = sums_ * static_cast<int64_t>(sizeof(float));
    at::parallel_for(0, units, task_grain(units, sum_bytes), [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) join(units_[i], sums);
    });
    units_.clear();
    sums_ = 0;
  }

  // Floats of q and of the result before a unit's query i and head.
  int64_t place(const Unit& unit, int64_t i) const {
    return ((unit.reading->begin + unit.first + i) * groups_ + unit.group) * heads_ * all_.d;
  }

  void run_task(const Unit& unit, int64_t part, float* sums) const {
    const Reading& reading = *unit.reading;
    StoredHead<T> head = all_;
    const int64_t shift = (reading.first_row * groups_ + unit.group) * head.d;
    head.keys += shift;
    head.values += shift;
    if (head.key_scales) {
      head.key_scales += unit.group * head.block_size;
      head.value_scales += unit.group * head.block_size;
    }
    head.blocks = reading.blocks;
    const int64_t begin = part * kPartTokens;
    run(QueryPart<T>{.stored = head,
                     .q = q_.const_data_ptr<float>() + place(unit, 0),
                     .q_row = groups_ * heads_ * head.d,
                     .queries = unit.count,
                     .heads = heads_,
                     .seen = unit.seen(),
                     .begin = begin,
                     .end = std::min(begin + kPartTokens, unit.seen() + unit.count - 1),
                     .scale = scale_,
                     .out = sums + unit.sums + part * unit.count * row_sums()});
  }

  void join(const Unit& unit, const float* sums) {
    float* out = out_.mutable_data_ptr<float>();
    for (int64_t i = 0; i < unit.count; ++i) {
      for (int64_t h = 0; h < heads_; ++h) {
        const float* first = sums + unit.sums + (i * heads_ + h) * (all_.d + 2);
        // A part that the query does not see has no weights, and is not to be a factor of NaN.
        const int64_t parts = (unit.seen() + i + kPartTokens - 1) / kPartTokens;
        put_together(first, parts, unit.count * row_sums(), all_.d,
                     out + place(unit, i) + h * all_.d);
      }
    }
  }

  const at::Tensor q_;
  at::Tensor out_;
  const int64_t groups_, heads_;
  const float scale_;
  const StoredHead<T> all_;
  std::vector<Unit> units_;
  int64_t sums_ = 0;  // floats that they have
};

at::Tensor attend(const at::Tensor& q, const KeyValueBlocks& kv,
                  const std::vector<Reading>& readings, double scale) {
  const at::Tensor queries = q.to(at::kFloat).contiguous();
  if (kv.is_int8()) return Call<int8_t>(queries, kv, scale).attend(readings);
  if (kv.keys.scalar_type() == at::kBFloat16) {
    return Call<hwy::bfloat16_t>(queries, kv, scale).attend(readings);
  }
  return Call<float>(queries, kv, scale).attend(readings);
}

}  // namespace

at::Tensor attention_reference(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                               double scale, const Sequences& sequences) {
  if (q.size(0) == 0) return at::empty_like(q, q.options().dtype(at::kFloat));
  // All tokens are one block, and each sequence's begins somewhere in it.
  const auto block = [](const at::Tensor& x) { return x.to(at::kFloat).contiguous().unsqueeze(0); };
  static constexpr int64_t kBlocks[] = {0};
  std::vector<Reading> readings;
  for (int64_t s = 0; s < sequences.count(); ++s) {
    const int64_t begin = sequences.offsets()[s], count = sequences.length(s);
    readings.push_back({begin, count, count, kBlocks, begin});
  }
  return attend(q, {block(k), block(v)}, readings, scale);
}

at::Tensor attention_reference(const at::Tensor& q, const PagedKeyValue& cache,
                               const Sequences& sequences, SequenceRange range, double scale) {
  const int64_t first = sequences.offsets()[range.begin];
  std::vector<Reading> readings;
  for (int64_t s = range.begin; s < range.end; ++s) {
    const int64_t* blocks =
        cache.block_table.const_data_ptr<int64_t>() + s * cache.block_table.size(1);
    readings.push_back(
        {sequences.offsets()[s] - first, sequences.length(s), cache.lengths[s], blocks, 0});
  }
  return attend(q, cache, readings, scale);
}

}  // namespace halo
#endif
