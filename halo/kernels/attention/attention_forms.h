// The forms behind causal_attention and paged_attention.
#pragma once

#include <functional>

#include "halo/kernels/attention/attention.h"
#include "halo/kernels/attention/merge_attention.h"

namespace halo {

// In one order of sums, on the CPU: [N, H, d] fp32. Of fresh sequences; and of sequences
// range.begin .. range.end-1 of continued ones, whose queries q are.
struct SequenceRange {
  int64_t begin, end;
};
at::Tensor attention_reference(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                               double scale, const Sequences& sequences);
at::Tensor attention_reference(const at::Tensor& q, const PagedKeyValue& cache,
                               const Sequences& sequences, SequenceRange range, double scale);

// Queries q [n, H, d], each of which sees all of k and v [L, G, d], or with `causal` the last ones
// up to its own: by Flash, on CUDA in bf16. Nothing is read on the host.
AttentionPart attention_flash(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                              double scale, bool causal);

// As attention_reference, on CUDA in bf16, for keys and values that are handed out a stretch at a
// time. Long stretches that every query sees whole are given to cuDNN, on Hopper almost twice as
// fast as Flash, and their results merged (README.md); to fewer queries long stretches that lie
// together are read where they lie.
struct KeysAndValues {
  at::Tensor k, v;  // [count, G, d]
};
struct StoredKeys {
  // Of `count` tokens from `begin` on: a view where they lie together in q's type, else gathered.
  std::function<KeysAndValues(int64_t begin, int64_t count)> get;
  // How many tokens from `begin` on, up to `end`, a view has; 0: none has any.
  std::function<int64_t(int64_t begin, int64_t end)> together;
};
at::Tensor attention_in_pieces(const at::Tensor& q, const StoredKeys& stored, int64_t length,
                               double scale);

// Queries q [n, H, d], each of which sees all of k and v [L, G, d], or with n = L and `causal` the
// first ones up to its own: by cuDNN, on CUDA in bf16.
AttentionPart attention_cudnn_part(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                                   double scale, bool causal);

// What the backward pass needs from the forward pass. Which fields are there depends on the kernel.
struct AttentionForward {
  at::Tensor o;  // [N, H, d] in q's type
  // Log-sum-exp of the scaled logits, fp32: [N, H] on the CPU; [H, N] of Flash and cuDNN; of the
  // memory-efficient kernel [1, H, N rounded up].
  at::Tensor log_sums;
  at::Tensor seed, offset;    // of the random numbers of dropout, of which there is none; CUDA
  at::Tensor cudnn_log_sums;  // cuDNN: the same in its own layout, [B, H, length, 1]
};

struct AttentionGradients {
  at::Tensor q, k, v;
};

// All below take q [N, H, d], k and v [N, G, d] of whole sequences, N > 0.

// CPU, all fp32 and contiguous; gradients of k and v are those of every query head, [N, H, d]. A
// sequence's results do not depend on the others.
AttentionForward attention_cpu(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                               double scale, const Sequences& sequences);
AttentionGradients attention_cpu_backward(const at::Tensor& d_o, const at::Tensor& q,
                                          const at::Tensor& k, const at::Tensor& v,
                                          const AttentionForward& forward, double scale,
                                          const Sequences& sequences);

// CUDA, contiguous, fp32 or bf16: LibTorch's kernels. `deterministic`: backward sums in a fixed
// order. Gradients of k and v are those of every query head in fp32, of every key/value head in
// bf16.
AttentionForward attention_aten(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                                double scale, const Sequences& sequences);
AttentionGradients attention_aten_backward(const at::Tensor& d_o, const at::Tensor& q,
                                           const at::Tensor& k, const at::Tensor& v,
                                           const AttentionForward& forward,
                                           const AttentionSettings& settings,
                                           const Sequences& sequences);

}  // namespace halo
