// Keys and values in blocks: storing, and attention of the newest tokens to all that is stored.

#include <algorithm>
#include <optional>

#include "ATen/ATen.h"
#include "ATen/core/grad_mode.h"
#include "halo/base/check.h"
#include "halo/kernels/attention/attention_forms.h"

namespace halo {
namespace {

// Bounds of temporary memory: gathered keys and values of decoding sequences; fp32 mask of a
// continued prompt.
constexpr int64_t kGatherBytes = 64 << 20;
constexpr int64_t kMaskBytes = 128 << 20;
// New tokens of a sequence on the CPU up to which keys and values are best read where they lie.
constexpr int64_t kFewTokens = 16;

void check(const PagedKeyValue& cache, const Sequences& sequences) {
  const auto &keys = cache.keys, &table = cache.block_table;
  HALO_CHECK(are_blocks(cache),
             "attention: stored keys and values must be contiguous [blocks, tokens, groups, "
             "dimension], those in int8 with scales [blocks, groups, tokens]");
  HALO_CHECK(table.dim() == 2 && table.size(0) == sequences.count() && table.is_cpu() &&
                 table.scalar_type() == at::kLong,
             "attention: the block table must be int64 [{}, blocks] on the host",
             sequences.count());
  HALO_CHECK(static_cast<int64_t>(cache.lengths.size()) == sequences.count(),
             "attention: {} lengths for {} sequences", cache.lengths.size(), sequences.count());
  const auto blocks = table.accessor<int64_t, 2>();
  for (int64_t s = 0; s < sequences.count(); ++s) {
    const int64_t length = cache.lengths[s], used = (length + keys.size(1) - 1) / keys.size(1);
    HALO_CHECK(length >= sequences.length(s) && used <= table.size(1),
               "attention: sequence {} has {} stored tokens, {} new ones, {} blocks of {}", s,
               length, sequences.length(s), table.size(1), keys.size(1));
    for (int64_t b = 0; b < used; ++b) {
      HALO_CHECK(blocks[s][b] >= 0 && blocks[s][b] < keys.size(0),
                 "attention: sequence {} names block {} of {}", s, blocks[s][b], keys.size(0));
    }
  }
}

// Where token t of sequence s is stored, as a row of keys.flatten(0, 1).
class Rows {
 public:
  explicit Rows(const PagedKeyValue& cache)
      : table_(cache.block_table.accessor<int64_t, 2>()), block_size_(cache.keys.size(1)) {}
  int64_t operator()(int64_t s, int64_t t) const {
    return table_[s][t / block_size_] * block_size_ + t % block_size_;
  }
  // Blocks first .. last of a sequence.
  std::vector<int64_t> blocks(int64_t s, int64_t first, int64_t last) const {
    std::vector<int64_t> found;
    for (int64_t b = first; b <= last; ++b) found.push_back(table_[s][b]);
    return found;
  }
  // How many of the tokens begin .. end-1 lie one behind the other.
  int64_t together(int64_t s, int64_t begin, int64_t end) const {
    int64_t b = begin / block_size_ + 1;
    while (b * block_size_ < end && table_[s][b] == table_[s][b - 1] + 1) ++b;
    return std::min(b * block_size_, end) - begin;
  }
  bool consecutive(int64_t s, int64_t begin, int64_t end) const {
    return together(s, begin, end) == end - begin;
  }

 private:
  at::TensorAccessor<int64_t, 2> table_;
  int64_t block_size_;
};

at::Tensor on_device(const std::vector<int64_t>& values, at::Device device) {
  return to_device(at::tensor(values, at::kLong), device);
}

// Tokens begin .. begin+count-1 of sequence s in keys or values: [count, G, d] in `type`, a view
// where they lie together in it.
at::Tensor stored(const at::Tensor& pool, const at::Tensor& scales, const Rows& rows, int64_t s,
                  int64_t begin, int64_t count, at::ScalarType type) {
  // Whole blocks: an index of tokens would be megabytes to make and to send, in every layer.
  const int64_t size = pool.size(1), first = begin / size, last = (begin + count - 1) / size;
  const bool together = rows.consecutive(s, begin, begin + count);
  const auto blocks_of = [&](const at::Tensor& x) {
    return together ? x.narrow(0, rows(s, begin) / size, last - first + 1)
                    : x.index_select(0, on_device(rows.blocks(s, first, last), x.device()));
  };
  const auto tokens_of = [&](const at::Tensor& x) {
    return x.flatten(0, 1).narrow(0, begin - first * size, count);
  };
  const at::Tensor numbers = tokens_of(blocks_of(pool));
  if (!scales.defined()) return numbers.to(type);
  return from_int8({numbers, tokens_of(blocks_of(scales).transpose(1, 2))}, type);
}

// One sequence with n new tokens: q [n, H, d], k and v [L, G, d] -> [n, H, d]. Query i sees keys
// 0 .. L-n+i.
at::Tensor attend_prompt(const at::Tensor& q, const StoredKeys& stored, int64_t length,
                         double scale) {
  if (q.is_cuda() && q.scalar_type() == at::kBFloat16) {
    return attention_in_pieces(q, stored, length, scale);
  }
  const auto [k, v] = stored.get(0, length);
  const int64_t count = q.size(0), groups = k.size(1), repeat = q.size(1) / groups, d = q.size(2);
  const int64_t past = k.size(0) - count;
  const int64_t step = std::max<int64_t>(1, kMaskBytes / (4 * k.size(0)));
  std::vector<at::Tensor> parts;
  for (int64_t begin = 0; begin < count; begin += step) {
    const int64_t end = std::min(begin + step, count), seen = past + end;
    // Heads of a group go along the batch axis, where keys and values repeat without a copy.
    const auto queries = q.slice(0, begin, end).view({end - begin, groups, repeat, d});
    const auto keys = k.slice(0, 0, seen).transpose(0, 1).expand({repeat, groups, seen, d});
    const auto values = v.slice(0, 0, seen).transpose(0, 1).expand({repeat, groups, seen, d});
    std::optional<at::Tensor> mask;
    if (end - begin > 1) {
      mask = at::ones({end - begin, seen}, q.options().dtype(at::kBool)).tril_(past + begin);
    }
    const auto o = at::scaled_dot_product_attention(queries.permute({2, 1, 0, 3}), keys, values,
                                                    mask, /*dropout_p=*/0, false, scale);
    parts.push_back(o.permute({2, 1, 0, 3}).reshape({end - begin, groups * repeat, d}));
  }
  return parts.size() == 1 ? parts[0] : at::cat(parts);
}

// Sequences `which`, one new token each, on a GPU: q [B, H, d] -> [B, H, d].
at::Tensor attend_tokens(const at::Tensor& q, const PagedKeyValue& cache,
                         const std::vector<int64_t>& which, int64_t longest, double scale) {
  const int64_t count = which.size(), groups = cache.keys.size(2), d = q.size(2);
  const int64_t block_size = cache.keys.size(1), blocks = (longest + block_size - 1) / block_size;
  std::vector<int64_t> table, lengths;
  const auto known = cache.block_table.accessor<int64_t, 2>();
  for (const int64_t s : which) {
    lengths.push_back(cache.lengths[s]);
    const int64_t last = (lengths.back() - 1) / block_size;
    for (int64_t b = 0; b < blocks; ++b) table.push_back(known[s][std::min(b, last)]);
  }
  // Behind a sequence's end its last row stands in for what is not stored: masked, never NaN.
  const auto length = on_device(lengths, q.device()).unsqueeze(1);  // [B, 1]
  const auto token = at::arange(longest, length.options()).expand({count, longest});
  const auto place = at::minimum(token, length - 1);
  const auto row = (on_device(table, q.device())
                            .view({count, blocks})
                            .gather(1, at::div(place, block_size, "floor")) *
                        block_size +
                    at::remainder(place, block_size))
                       .flatten();
  const auto gather = [&](const at::Tensor& pool, const at::Tensor& scales) {
    return rows_at(pool, scales, row, q.scalar_type())
        .view({count, longest, groups, d})
        .transpose(1, 2);
  };
  const auto mask = (token < length).view({count, 1, 1, longest});
  const auto o = at::scaled_dot_product_attention(q.view({count, groups, -1, d}),
                                                  gather(cache.keys, cache.key_scales),
                                                  gather(cache.values, cache.value_scales), mask,
                                                  /*dropout_p=*/0, /*is_causal=*/false, scale);
  return o.reshape({count, -1, d});
}

at::Tensor fast(const at::Tensor& q, const PagedKeyValue& cache, double scale,
                const Sequences& sequences) {
  const Rows rows(cache);
  auto out = at::empty_like(q);
  const int64_t token_bytes = 2 * cache.keys.size(2) * q.size(2) * q.element_size();
  int64_t s = 0;
  while (s < sequences.count()) {
    int64_t end = s, longest = 0;
    while (q.is_cpu() && end < sequences.count() && sequences.length(end) <= kFewTokens) ++end;
    if (end > s) {
      const int64_t begin = sequences.offsets()[s], after = sequences.offsets()[end];
      out.slice(0, begin, after)
          .copy_(attention_reference(q.slice(0, begin, after), cache, sequences, {s, end}, scale));
      s = end;
      continue;
    }
    // As many decoding sequences together as fit the bound, anything else alone.
    std::vector<int64_t> which;
    for (; end < sequences.count() && sequences.length(end) <= 1; ++end) {
      if (sequences.length(end) == 0) continue;
      const int64_t wider = std::max(longest, cache.lengths[end]);
      const auto widened = static_cast<int64_t>(which.size() + 1);
      if (!which.empty() && widened * wider * token_bytes > kGatherBytes) break;
      which.push_back(end);
      longest = wider;
    }
    if (end == s) which.push_back(end++);
    if (!which.empty()) {
      const int64_t begin = sequences.offsets()[which.front()];
      const auto part = q.slice(0, begin, sequences.offsets()[which.back() + 1]);
      const auto tokens_of = [&](const at::Tensor& pool, const at::Tensor& scales, int64_t first,
                                 int64_t count) {
        return stored(pool, scales, rows, which[0], first, count, q.scalar_type());
      };
      const StoredKeys keys{
          .get =
              [&](int64_t first, int64_t count) {
                return KeysAndValues{tokens_of(cache.keys, cache.key_scales, first, count),
                                     tokens_of(cache.values, cache.value_scales, first, count)};
              },
          // int8 is widened again, wherever it lies: by pieces.
          .together =
              [&](int64_t first, int64_t last) {
                return cache.is_int8() ? int64_t{0} : rows.together(which[0], first, last);
              }};
      const auto o = which.size() > 1 ? attend_tokens(part, cache, which, longest, scale)
                                      : attend_prompt(part, keys, cache.lengths[which[0]], scale);
      out.slice(0, begin, sequences.offsets()[which.back() + 1]).copy_(o);
    }
    s = end;
  }
  return out;
}

}  // namespace

void store_key_value(const PagedKeyValue& cache, const at::Tensor& k, const at::Tensor& v,
                     const Sequences& sequences) {
  check(cache, sequences);
  HALO_CHECK(k.dim() == 3 && k.sizes() == v.sizes() && k.size(0) == sequences.num_tokens() &&
                 k.size(1) == cache.keys.size(2) && k.size(2) == cache.keys.size(3),
             "attention: k and v to store must be [{}, {}, {}]", sequences.num_tokens(),
             cache.keys.size(2), cache.keys.size(3));
  const at::NoGradGuard no_grad;
  const Rows rows(cache);
  // One sequence's new tokens mostly lie together: a copy, where an index is sorted first.
  const int64_t end = cache.lengths.empty() ? 0 : cache.lengths[0];
  const int64_t begin = end - sequences.num_tokens();
  if (!cache.is_int8() && sequences.count() == 1 && begin < end &&
      rows.consecutive(0, begin, end)) {
    const auto copy = [&](const at::Tensor& pool, const at::Tensor& x) {
      pool.flatten(0, 1).narrow(0, rows(0, begin), end - begin).copy_(x);
    };
    copy(cache.keys, k);
    copy(cache.values, v);
    return;
  }
  std::vector<int64_t> index;
  index.reserve(sequences.num_tokens());
  for (int64_t s = 0; s < sequences.count(); ++s) {
    for (int64_t t = cache.lengths[s] - sequences.length(s); t < cache.lengths[s]; ++t) {
      index.push_back(rows(s, t));
    }
  }
  const auto row = on_device(index, k.device());
  store_tokens(cache.keys, cache.key_scales, row, k);
  store_tokens(cache.values, cache.value_scales, row, v);
}

at::Tensor paged_attention(const at::Tensor& q, const PagedKeyValue& cache,
                           const Sequences& sequences, const AttentionSettings& settings) {
  check(cache, sequences);
  const int64_t groups = cache.keys.size(2), d = cache.keys.size(3);
  HALO_CHECK(q.dim() == 3 && q.size(0) == sequences.num_tokens() && q.size(1) % groups == 0 &&
                 q.size(2) == d,
             "attention: q must be [{}, a multiple of {}, {}]", sequences.num_tokens(), groups, d);
  const at::NoGradGuard no_grad;
  if (settings.kernels == Kernels::kFast) {
    // CPU kernels are fastest in fp32.
    const at::Tensor queries = q.is_cpu() ? q.to(at::kFloat) : q;
    return fast(queries.contiguous(), cache, settings.scale, sequences).to(q.scalar_type());
  }
  HALO_CHECK(q.is_cpu(), "attention: the reference runs on the CPU");
  return attention_reference(q, cache, sequences, {0, sequences.count()}, settings.scale)
      .to(q.scalar_type());
}

}  // namespace halo
