// Causal softmax attention with grouped key/value heads (hypenet.md 1.1, step 4). Query head h uses
// key/value head h / (H/G). Any logit scale is already in q.
#pragma once

#include "halo/kernels/common/key_values.h"
#include "halo/kernels/common/sequences.h"

namespace halo {

struct AttentionSettings {
  double scale = 1;  // of the logits
  Kernels kernels = Kernels::kFast;
  bool deterministic = true;  // on a GPU backward sums in a fixed order
};

// Fresh sequences (training, and prefill without a past): token i of a sequence sees tokens 0..i of
// the same sequence. q [N, H, d], k and v [N, G, d] -> [N, H, d]. Softmax statistics in fp32.
at::Tensor causal_attention(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                            const Sequences& sequences, const AttentionSettings& settings);

// The keys and values of all sequences, as blocks found through a table.
struct PagedKeyValue : KeyValueBlocks {
  at::Tensor block_table;        // [S, max_blocks] int64 on the host: block of token t is
                                 // block_table[s][t / block_size]
  std::vector<int64_t> lengths;  // [S] tokens stored, this call's own included
};

// Writes this call's k, v [N, G, d] behind what is stored: token i of sequence s goes to place
// lengths[s] - length(s) + i.
void store_key_value(const PagedKeyValue& cache, const at::Tensor& k, const at::Tensor& v,
                     const Sequences& sequences);

// Continued sequences: the last length(s) stored tokens are the queries; query i sees the first
// lengths[s] - length(s) + i + 1 stored tokens. No gradients.
at::Tensor paged_attention(const at::Tensor& q, const PagedKeyValue& cache,
                           const Sequences& sequences, const AttentionSettings& settings);

}  // namespace halo
