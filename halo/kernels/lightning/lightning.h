// Lightning attention: a linear recurrence with a fixed decay per head (hypenet.md 1.2).
//   S_t = g_h S_{t-1} + k_t v_t^T,   o_t = scale * S_t^T q_t,   g_h = exp(-slopes[h])
// The current token enters undecayed. The state is fp32 and restarts at every sequence.
// As a research option the decay is one of each head and token, g_{t,h} = exp(log_decay[t, h]).
#pragma once

#include <utility>
#include <vector>

#include "halo/kernels/common/sequences.h"

namespace halo {

// ALiBi slopes of H heads (hypenet.md 1.2, step 4), fp64.
std::vector<double> alibi_slopes(int64_t num_heads);

// The log-decays [N, H] fp64 that gates [N, H] of any floating type make of the slopes:
//   log_decay = -slope * softplus(gate) / ln 2
// which is the fixed decay where the gate is 0, none far below it, and grows with it above. This is
// Mamba-2's decay exp(-A softplus(x w + b)) (Dao and Gu 2024, arXiv 2405.21060) with A =
// slope/ln 2.
at::Tensor gated_log_decay(const at::Tensor& gate, const std::vector<double>& slopes);

struct LightningArgs {
  at::Tensor q, k;  // [N, H, dk]; k may have fewer heads G (H a multiple of G: head h of q uses
  at::Tensor v;     // [N, H, dv]  k/v head h / (H/G)); all of one floating type
  std::vector<double> slopes;  // H
  double scale = 1;
  at::Tensor state;  // [S, H, dk, dv] fp32 before each sequence; undefined: zero
  // [N, H] fp64, none above 0; undefined: -slopes for every token. Composed forms alone take it.
  at::Tensor log_decay = {};
};

struct LightningResult {
  at::Tensor o;      // [N, H, dv], q's type
  at::Tensor state;  // [S, H, dk, dv] fp32 after each sequence; an empty sequence keeps its state
};

// Whether a GPU runs heads of this size (dk = dv, fp32 or bf16) by kernels of its own; else by a
// composition, which reads the sequences' offsets on the host.
bool has_lightning_kernels(int64_t head_size);

// Gradients flow to q, k, v, the initial state and log_decay, from o and the final state.
// kFast: chunked. kReference: token by token (forward; its gradients come from the chunked form).
LightningResult lightning_attention(const LightningArgs& args, const Sequences& sequences,
                                    Kernels kernels);

}  // namespace halo
