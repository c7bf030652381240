// What happens to a layer's stacked projection before its mixer: split into heads, RMSNorm per head
// on q and k, RoPE or logit scale (hypenet.md 1.1 steps 1-3, 1.2 steps 1-2).
#pragma once

#include <optional>
#include <vector>

#include "halo/kernels/common/key_values.h"
#include "halo/kernels/common/weight.h"

namespace halo {

// cos and sin of positions[n] * inv_freq[i]: each [N, d/2] fp32. Angles in float64, so they are
// right at a million (fp32 products are 0.06 rad off there).
struct RopeTables {
  at::Tensor cos, sin;
};
RopeTables rope_tables(const at::Tensor& positions /* [N] int64 */,
                       const at::Tensor& inv_freq /* [d/2] fp64, on the same device */);

// s_t = ln(t + a) / ln(a) for every position, [N] fp32, computed in float64 (hypenet.md 1.1).
at::Tensor log_position_scale(const at::Tensor& positions /* [N] int64 */, double a);

struct HeadSplit {
  int64_t heads = 0;     // H, of q and of the gate
  int64_t kv_heads = 0;  // G
  int64_t head_dim = 0;  // d
  bool has_gate = false;
  double eps = 0;  // of the norms
};

struct Heads {
  at::Tensor q;     // [N, H, d]
  at::Tensor k;     // [N, G, d]
  at::Tensor v;     // [N, G, d]
  at::Tensor gate;  // [N, H*d], raw (no sigmoid yet); undefined without one
};

// stacked [N, H*d + 2*G*d (+ H*d)]: q, k, v and, if has_gate, the gate, in this order.
// q_norm, k_norm [d]: undefined values mean no norm. rope: rotation of pairs (i, i + d/2) over all
// of d, after the norm. q_scale [N] fp32: multiplies q last. Outputs are contiguous.
// One autograd node; its backward writes the one gradient of `stacked`.
Heads split_heads(const at::Tensor& stacked, const HeadSplit& split, const Weight& q_norm,
                  const Weight& k_norm, const std::optional<RopeTables>& rope,
                  const std::optional<at::Tensor>& q_scale);

// Where keys and values are stored.
struct HeadStore : KeyValueBlocks {
  at::Tensor rows;  // [N] int64 on the device: of row n's k and v; negative: nowhere
};

// The same, without gradients, for a decoding step: k and v go to their rows of the store, the gate
// stays where it is. Returns q.
at::Tensor split_heads_store(const at::Tensor& stacked, const HeadSplit& split,
                             const Weight& q_norm, const Weight& k_norm,
                             const std::optional<RopeTables>& rope,
                             const std::optional<at::Tensor>& q_scale, const HeadStore& store);

}  // namespace halo
