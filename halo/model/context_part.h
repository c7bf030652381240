// Context parallelism: ranks of a group share the tokens of a batch, each an equal part of the
// token axis, so that a sequence may be longer than what one of them could hold. Where a mixer
// looks beyond its part:
//   attention   each rank attends for some of the heads over all tokens: q, k, v go from "my
//               tokens, all heads" to "all tokens, my heads", and the result back (DeepSpeed-
//               Ulysses, Jacobs et al. 2023, arXiv 2309.14509). Causal work is the same for all.
//   lightning   each rank runs its part from the state before it (hypenet.md 1.2). It is a sum of
//               what the ranks before leave, decayed by the way from there: as in LASP (Sun et al.
//               2024, arXiv 2404.02882), but all at once, since the decay of a whole part is known.
// All ranks of all groups come to the same exchanges in the same order, forward and backward,
// whatever sequences they have.
#pragma once

#include <cstdint>
#include <vector>

#include "halo/kernels/attention/attention.h"
#include "halo/kernels/lightning/lightning.h"
#include "halo/runtime/communicator.h"

namespace halo {

// The ranks that share a batch: `size` consecutive ones.
struct ContextGroup {
  Communicator* ranks = &one_rank();
  int64_t size = 1;
  int64_t place() const { return ranks->rank() % size; }  // of this rank among them
};

struct ContextPart {
  ContextGroup group;
  Sequences whole;  // of all parts, N tokens, a multiple of the group's size

  int64_t tokens() const { return whole.num_tokens() / group.size; }
  int64_t begin() const { return begin_of(group.place()); }
  int64_t begin_of(int64_t place) const { return place * tokens(); }
};

// Offsets of the sequences in tokens begin .. begin+count-1, those that reach beyond cut there.
std::vector<int64_t> offsets_within(const std::vector<int64_t>& offsets, int64_t begin,
                                    int64_t count);

// Whether so many ranks can share these heads: each has as many query heads, and with them either
// as many key/value heads or a copy of one.
bool can_share_heads(int64_t ranks, int64_t heads, int64_t kv_heads);

// causal_attention over `part.whole` of this rank's tokens: q [n, H, d], k and v [n, G, d], n =
// part.tokens() -> [n, H, d]. can_share_heads(group.size, H, G).
at::Tensor context_attention(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                             const ContextPart& part, const AttentionSettings& settings);

// lightning_attention over `part.whole` of this rank's tokens, of which `sequences` are the cuts:
// args.q [n, H, dk], k and v [n, G, ...], no state, fixed decays -> o [n, H, dv] in q's type.
// States and their gradients cross parts in fp32 and enter the kernels' own sums, so that o and the
// gradients are rounded once, as on one rank.
at::Tensor context_lightning(const LightningArgs& args, const Sequences& sequences,
                             const ContextPart& part, Kernels kernels);

}  // namespace halo
