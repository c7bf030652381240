// Attention of a long prompt's newest tokens to all that is stored, cut so that most of it is work
// without a mask, in few shapes: cuDNN plans anew for every shape, which takes it 40 to 70 ms.
#include <algorithm>

#include "ATen/ATen.h"
#include "halo/base/check.h"
#include "halo/kernels/attention/attention_forms.h"
#include "halo/kernels/cuda/cuda_kernels.h"

namespace halo {
namespace {

constexpr int64_t kPiece = 16384;   // keys of a piece
constexpr int64_t kGrid = 4096;     // numbers of keys in a shorter piece
constexpr int64_t kQueries = 1024;  // numbers of queries

// What lies together is read where it lies from so many keys on; what does not is gathered.
constexpr int64_t kTogether = 2048, kGathered = 32768;

bool pays(const at::Tensor& q, int64_t past) {
  const int64_t head_size = q.size(2);
  return past >= kGrid && q.size(0) >= kQueries && (head_size == 64 || head_size == 128) &&
         compute_capability(q) == 9;
}

// With tokens behind the last, up to a multiple of `grid`.
at::Tensor padded(const at::Tensor& x, int64_t grid) {
  const int64_t more = (grid - x.size(0) % grid) % grid;
  return more > 0 ? at::constant_pad_nd(x, {0, 0, 0, 0, 0, more}) : x.contiguous();
}

at::Tensor attention_by_stretches(const at::Tensor& q, const StoredKeys& stored, int64_t length,
                                  double scale) {
  const int64_t past = length - q.size(0);
  AttentionMerge merge;
  for (int64_t begin = 0;;) {
    int64_t keys = stored.together(begin, length);
    bool last = begin + keys == length;
    if (!last) keys = std::min(keys, past - begin);
    if (!last && keys < kTogether) {
      keys = std::min(kGathered, past - begin);
      last = begin + keys == past;
    }
    const auto [k, v] = stored.get(begin, last ? length - begin : keys);
    const AttentionPart part = attention_flash(q, k, v, scale, /*causal=*/last);
    if (begin == 0 && last) return part.o;
    merge.add(part);
    if (last) return merge.result();
    begin += keys;
  }
}

}  // namespace

at::Tensor attention_in_pieces(const at::Tensor& q, const StoredKeys& stored, int64_t length,
                               double scale) {
  const int64_t count = q.size(0), past = length - count;
  if (!pays(q, past)) return attention_by_stretches(q, stored, length, scale);
  const at::Tensor queries = padded(q, kQueries);
  AttentionMerge merge;
  const auto add = [&](const at::Tensor& k, const at::Tensor& v, bool causal) {
    const AttentionPart part = attention_cudnn_part(queries, k, v, scale, causal);
    merge.add({part.o.narrow(0, 0, count), part.log_sums.narrow(1, 0, count)});
  };
  int64_t begin = 0;
  for (int64_t keys = 0; past - begin >= kGrid; begin += keys) {
    keys = std::min(kPiece, (past - begin) / kGrid * kGrid);
    const auto [k, v] = stored.get(begin, keys);
    add(k, v, false);
  }
  const auto [k, v] = stored.get(begin, length - begin);
  if (begin == past) {  // the triangle alone; no query sees the padding behind it
    add(padded(k, kQueries), padded(v, kQueries), true);
  } else {
    merge.add(attention_flash(q, k, v, scale, /*causal=*/true));
  }
  return merge.result();
}

}  // namespace halo
