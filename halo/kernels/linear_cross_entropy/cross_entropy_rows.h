// Cross-entropy of rows of logits, in place: the form for each device. Internal.
#pragma once

#include <ATen/core/Tensor.h>

#include "halo/kernels/logit_loss/chunked_loss.h"

namespace halo {

// targets [N] int64, contiguous, in [0, V) or kIgnoreTarget (on the CPU). An Error otherwise.
void check_targets(const char* loss, const at::Tensor& hidden, const at::Tensor& head,
                   const at::Tensor& targets);

// chunk.losses = -weight ln softmax(logits)[target], 0 where ignored; where chunk.gradient,
// logits = weight (softmax(logits) - onehot(target)), 0 where ignored.
// targets [n] int64, weights [n] fp32 or undefined: those of the chunk's rows.
void cross_entropy_rows_cpu(const LossChunk& chunk, const at::Tensor& targets,
                            const at::Tensor& weights);
void cross_entropy_rows_aten(const LossChunk& chunk, const at::Tensor& targets,
                             const at::Tensor& weights);
// One kernel of our own; logits fp32 or bf16.
void cross_entropy_rows_cuda(const LossChunk& chunk, const at::Tensor& targets,
                             const at::Tensor& weights);

// token_losses (linear_cross_entropy.h) in a fixed order of sums, on the CPU.
at::Tensor token_losses_reference(const at::Tensor& hidden, const at::Tensor& head,
                                  const at::Tensor& targets);

}  // namespace halo
