// Causal attention of fresh sequences on the CPU in fp32 (README.md): softmax over blocks of keys
// with a running maximum, so a row of weights never exists whole. Tasks are (sequence,
// head, block of queries) forward and (sequence, head) backward; a task's bits depend on its
// sequence alone.
#include <cmath>
#include <limits>
#include <vector>

#include "ATen/ATen.h"
#include "ATen/Parallel.h"
#include "halo/kernels/attention/attention_forms.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "halo/kernels/attention/attention_cpu.cc"
#include "hwy/foreach_target.h"
// After foreach_target.h: this is read once a target.
#include "halo/kernels/cpu/tile-inl.h"

#ifndef HALO_KERNELS_ATTENTION_HEAD_
#define HALO_KERNELS_ATTENTION_HEAD_
namespace halo {

constexpr int64_t kQueries = 64;  // a block
constexpr int64_t kKeys = 64;

// One head of one sequence. Rows of q, o and all gradients are q_row floats apart.
struct AttentionHead {
  int64_t tokens, d;
  float scale;
  const float *q, *k, *v;
  int64_t q_row, kv_row;
  // Log-sum-exp of the queries, log_sum_row apart: written forward, read backward.
  float* log_sum = nullptr;
  int64_t log_sum_row = 1;
  // Forward alone. packed: for each block of keys they transposed [d, kKeys], then the values
  // [kKeys, d], both padded.
  const float* packed = nullptr;
  float* o = nullptr;
  // Backward alone.
  const float *out = nullptr, *d_o = nullptr;
  float *d_q = nullptr, *d_k = nullptr, *d_v = nullptr;
};

}  // namespace halo
#endif

HWY_BEFORE_NAMESPACE();
namespace halo {
namespace HWY_NAMESPACE {

int64_t packed_size(int64_t d) {
  return 2 * kKeys * padded(d);
}

// Keys and values of the block that begins at token `key`.
void pack_block(const AttentionHead& t, int64_t key, float* to) {
  const int64_t n = std::min(kKeys, t.tokens - key), width = padded(t.d);
  float* values = to + kKeys * width;
  pack(t.k + key * t.kv_row, t.kv_row, n, t.d, 1, values);
  transpose(values, padded(n), width, to, kKeys);
  pack(t.v + key * t.kv_row, t.kv_row, n, t.d, 1, values);
}

// x = exp(x - shift) for the first `visible` of `columns`, 0 for the others; returns the sum.
HWY_INLINE float exp_row(float* x, int64_t visible, int64_t columns, float shift) {
  std::fill(x + visible, x + columns, -std::numeric_limits<float>::infinity());
  return sum_columns(columns, [&](auto d, int64_t c) HWY_ATTR {
    const auto v = hn::Sub(hn::LoadU(d, x + c), hn::Set(d, shift));
    const auto y = hn::IfThenElse(hn::IsNaN(v), v, hn::Exp(d, v));  // Exp loses NaN
    hn::StoreU(y, d, x + c);
    return y;
  });
}

HWY_INLINE float max_of(const float* x, int64_t columns, float so_far) {
  const hn::CappedTag<float, kPad> d;
  auto most = hn::Set(d, so_far);
  for (int64_t c = 0; c < columns; c += hn::Lanes(d)) most = hn::Max(most, hn::LoadU(d, x + c));
  return hn::GetLane(hn::MaxOfLanes(d, most));
}

// Softmax so far of one query.
struct Running {
  float most = -std::numeric_limits<float>::infinity();
  float sum = 0;
};

// Takes the logits x of the next keys in: x becomes their weights, o [width] is rescaled.
HWY_INLINE void add_keys(float* x, int64_t visible, int64_t columns, float* o, int64_t width,
                         Running& running) {
  std::fill(x + visible, x + columns, -std::numeric_limits<float>::infinity());
  const float most = max_of(x, columns, running.most);
  if (most != running.most) {
    const float factor = std::exp(running.most - most);
    running.sum *= factor;
    running.most = most;
    scale(o, width, factor);
  }
  running.sum += exp_row(x, visible, columns, most);
}

// Rows of a block that are worked through at once: all, but strips where the diagonal passes.
HWY_INLINE int64_t strip_rows(bool diagonal) {
  return diagonal ? kStrip : kQueries;
}

void attention_queries(const AttentionHead& t, int64_t first) {
  const int64_t width = padded(t.d), n = std::min(kQueries, t.tokens - first);
  std::vector<float> q(kQueries * width), o(kQueries * width), weights(kQueries * kKeys);
  Running running[kQueries];
  pack(t.q + first * t.q_row, t.q_row, n, t.d, t.scale, q.data());
  for (int64_t key = 0; key <= first; key += kKeys) {
    const float* keys = t.packed + key / kKeys * packed_size(t.d);
    const float* values = keys + kKeys * width;
    const int64_t step = strip_rows(key == first);
    for (int64_t i = 0; i < n; i += step) {
      const int64_t rows = std::min(step, n - i);
      const int64_t visible = key == first ? i + rows : kKeys, columns = padded(visible);
      float *x = weights.data() + i * kKeys, *out = o.data() + i * width;
      product<false>({q.data() + i * width, width, 1, keys, kKeys, x, kKeys, rows, columns, t.d});
      for (int64_t r = 0; r < rows; ++r) {
        add_keys(x + r * kKeys, key == first ? i + r + 1 : kKeys, columns, out + r * width, width,
                 running[i + r]);
      }
      product<true>({x, kKeys, 1, values, width, out, width, rows, width, visible});
    }
  }
  for (int64_t i = 0; i < n; ++i) {
    unpack(o.data() + i * width, 1, t.d, 1 / running[i].sum, t.o + (first + i) * t.q_row, t.q_row);
    t.log_sum[(first + i) * t.log_sum_row] = running[i].most + std::log(running[i].sum);
  }
}

// x = the weights of the visible keys, dx = the gradients of their logits from those of the
// weights.
HWY_INLINE void logit_gradients(float* x, float* dx, int64_t visible, int64_t columns,
                                float log_sum, float along) {
  exp_row(x, visible, columns, log_sum);
  for_columns(columns, [&](auto d, int64_t c) HWY_ATTR {
    const auto difference = hn::Sub(hn::LoadU(d, dx + c), hn::Set(d, along));
    hn::StoreU(hn::Mul(hn::LoadU(d, x + c), difference), d, dx + c);
  });
}

// What a block of keys and a block of queries, at token `first`, give to each other's gradients.
struct BackwardBlock {
  const float *q, *d_o;                   // [., width]; q times scale
  const float *keys, *keys_t, *values_t;  // [., width], [width, kKeys] twice
  const float *log_sum, *along;           // of the queries
  float *d_q, *d_k, *d_v;                 // [., width], added to
  float *weights, *d_logits;              // [., kKeys] scratch
  int64_t queries, visible, d;            // visible: keys, of the last query
  bool diagonal;
};

HWY_INLINE void backward_block(const BackwardBlock& b) {
  const int64_t width = padded(b.d), step = strip_rows(b.diagonal);
  for (int64_t i = 0; i < b.queries; i += step) {
    const int64_t rows = std::min(step, b.queries - i);
    const int64_t visible = b.diagonal ? i + rows : b.visible, columns = padded(visible);
    float *x = b.weights + i * kKeys, *dx = b.d_logits + i * kKeys;
    product<false>({b.q + i * width, width, 1, b.keys_t, kKeys, x, kKeys, rows, columns, b.d});
    product<false>({b.d_o + i * width, width, 1, b.values_t, kKeys, dx, kKeys, rows, columns, b.d});
    for (int64_t r = 0; r < rows; ++r) {
      logit_gradients(x + r * kKeys, dx + r * kKeys, b.diagonal ? i + r + 1 : visible, columns,
                      b.log_sum[i + r], b.along[i + r]);
    }
    product<true>({dx, kKeys, 1, b.keys, width, b.d_q + i * width, width, rows, width, visible});
  }
  for (int64_t j = 0; j < b.visible; j += step) {
    const int64_t keys = std::min(step, b.visible - j), begin = b.diagonal ? j : 0;
    const int64_t place = begin * kKeys + j, rows = b.queries - begin;
    product<true>({b.weights + place, 1, kKeys, b.d_o + begin * width, width, b.d_v + j * width,
                   width, keys, width, rows});
    product<true>({b.d_logits + place, 1, kKeys, b.q + begin * width, width, b.d_k + j * width,
                   width, keys, width, rows});
  }
}

void attention_backward_head(const AttentionHead& t) {
  const int64_t d = t.d, width = padded(d), rows = padded(t.tokens);
  std::vector<float> q(rows * width), d_o(rows * width), d_q(rows * width), along(t.tokens),
      log_sum(t.tokens);
  pack(t.q, t.q_row, t.tokens, d, t.scale, q.data());
  pack(t.d_o, t.q_row, t.tokens, d, 1, d_o.data());
  for (int64_t i = 0; i < t.tokens; ++i) {
    const float *x = t.out + i * t.q_row, *y = t.d_o + i * t.q_row;
    along[i] = sum_columns(d, [&](auto tag, int64_t c) HWY_ATTR {
      return hn::Mul(hn::LoadU(tag, x + c), hn::LoadU(tag, y + c));
    });
    log_sum[i] = t.log_sum[i * t.log_sum_row];
  }
  std::vector<float> keys(kKeys * width), keys_t(kKeys * width), values_t(kKeys * width),
      d_k(kKeys * width), d_v(kKeys * width), weights(kQueries * kKeys), d_logits(kQueries * kKeys);
  for (int64_t key = 0; key < t.tokens; key += kKeys) {
    const int64_t n = std::min(kKeys, t.tokens - key);
    pack(t.v + key * t.kv_row, t.kv_row, n, d, 1, keys.data());
    transpose(keys.data(), padded(n), width, values_t.data(), kKeys);
    pack(t.k + key * t.kv_row, t.kv_row, n, d, 1, keys.data());
    transpose(keys.data(), padded(n), width, keys_t.data(), kKeys);
    std::fill(d_k.begin(), d_k.end(), 0.0f);
    std::fill(d_v.begin(), d_v.end(), 0.0f);
    for (int64_t first = key; first < t.tokens; first += kQueries) {
      backward_block({q.data() + first * width, d_o.data() + first * width, keys.data(),
                      keys_t.data(), values_t.data(), log_sum.data() + first, along.data() + first,
                      d_q.data() + first * width, d_k.data(), d_v.data(), weights.data(),
                      d_logits.data(), std::min(kQueries, t.tokens - first), n, d, first == key});
    }
    unpack(d_k.data(), n, d, 1, t.d_k + key * t.q_row, t.q_row);
    unpack(d_v.data(), n, d, 1, t.d_v + key * t.q_row, t.q_row);
  }
  unpack(d_q.data(), t.tokens, d, t.scale, t.d_q, t.q_row);
}

}  // namespace HWY_NAMESPACE
}  // namespace halo
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace halo {

HWY_EXPORT(packed_size);
HWY_EXPORT(pack_block);
HWY_EXPORT(attention_queries);
HWY_EXPORT(attention_backward_head);

namespace {

// The blocks of kKeys tokens of all sequences, in order.
struct Block {
  int64_t sequence, index;  // index within the sequence
};

std::vector<Block> blocks_of(const Sequences& sequences) {
  std::vector<Block> blocks;
  for (int64_t s = 0; s < sequences.count(); ++s) {
    for (int64_t i = 0; i * kKeys < sequences.length(s); ++i) blocks.push_back({s, i});
  }
  return blocks;
}

AttentionHead head_of(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v, double scale,
                      const Sequences& sequences, int64_t s, int64_t h) {
  const int64_t heads = q.size(1), groups = k.size(1), d = q.size(2),
                token = sequences.offsets()[s];
  const int64_t kv_place = (token * groups + h / (heads / groups)) * d;
  return {sequences.length(s),
          d,
          static_cast<float>(scale),
          q.const_data_ptr<float>() + (token * heads + h) * d,
          k.const_data_ptr<float>() + kv_place,
          v.const_data_ptr<float>() + kv_place,
          heads * d,
          groups * d};
}

}  // namespace

AttentionForward attention_cpu(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                               double scale, const Sequences& sequences) {
  static_assert(kQueries == kKeys);
  const int64_t heads = q.size(1), groups = k.size(1), repeat = heads / groups, d = q.size(2);
  const std::vector<Block> blocks = blocks_of(sequences);
  const auto count = static_cast<int64_t>(blocks.size());
  const int64_t block_size = HWY_DYNAMIC_DISPATCH(packed_size)(d);
  const at::Tensor packed = at::empty({groups, count, block_size}, q.options());
  AttentionForward out{.o = at::empty_like(q),
                       .log_sums = at::empty({q.size(0), heads}, q.options())};
  float *to = packed.mutable_data_ptr<float>(), *o = out.o.mutable_data_ptr<float>(),
        *log_sums = out.log_sums.mutable_data_ptr<float>();
  at::parallel_for(0, groups * count, 1, [&](int64_t begin, int64_t end) {
    for (int64_t task = begin; task < end; ++task) {
      const Block& block = blocks[task % count];
      HWY_DYNAMIC_DISPATCH(pack_block)
      (head_of(q, k, v, scale, sequences, block.sequence, task / count * repeat),
       block.index * kKeys, to + task * block_size);
    }
  });
  at::parallel_for(0, heads * count, 1, [&](int64_t begin, int64_t end) {
    for (int64_t task = begin; task < end; ++task) {
      const int64_t place = task % count, h = task / count;
      const Block& block = blocks[place];
      const int64_t row = sequences.offsets()[block.sequence] * heads + h;
      AttentionHead head = head_of(q, k, v, scale, sequences, block.sequence, h);
      head.packed = to + (h / repeat * count + place - block.index) * block_size;
      head.o = o + row * d;
      head.log_sum = log_sums + row;
      head.log_sum_row = heads;
      HWY_DYNAMIC_DISPATCH(attention_queries)(head, block.index * kQueries);
    }
  });
  return out;
}

AttentionGradients attention_cpu_backward(const at::Tensor& d_o, const at::Tensor& q,
                                          const at::Tensor& k, const at::Tensor& v,
                                          const AttentionForward& forward, double scale,
                                          const Sequences& sequences) {
  const int64_t heads = q.size(1), d = q.size(2);
  AttentionGradients out{at::empty_like(q), at::empty_like(q), at::empty_like(q)};
  const float *o = forward.o.const_data_ptr<float>(), *d_out = d_o.const_data_ptr<float>();
  float* log_sums = forward.log_sums.mutable_data_ptr<float>();  // only read
  float *d_q = out.q.mutable_data_ptr<float>(), *d_k = out.k.mutable_data_ptr<float>(),
        *d_v = out.v.mutable_data_ptr<float>();
  at::parallel_for(0, sequences.count() * heads, 1, [&](int64_t begin, int64_t end) {
    for (int64_t task = begin; task < end; ++task) {
      const int64_t s = task / heads, h = task % heads, row = sequences.offsets()[s] * heads + h;
      if (sequences.length(s) == 0) continue;
      AttentionHead head = head_of(q, k, v, scale, sequences, s, h);
      head.log_sum = log_sums + row;
      head.log_sum_row = heads;
      head.out = o + row * d;
      head.d_o = d_out + row * d;
      head.d_q = d_q + row * d;
      head.d_k = d_k + row * d;
      head.d_v = d_v + row * d;
      HWY_DYNAMIC_DISPATCH(attention_backward_head)(head);
    }
  });
  return out;
}

}  // namespace halo
#endif  // HWY_ONCE
