// KL of rows of logits, in place: the form for each device. Internal.
#pragma once

#include <ATen/core/Tensor.h>

#include "halo/kernels/chunked_loss.h"

namespace halo {

// chunk.losses = weight sum_v p_teacher (ln p_teacher - ln p_student); where chunk.gradient,
// logits = weight (p_student - p_teacher). teacher [n, V], of the logits' type, is scratch space
// afterwards; weights [n] fp32 or undefined: those of the chunk's rows.
void kl_rows_cpu(const LossChunk& chunk, at::Tensor& teacher, const at::Tensor& weights);
void kl_rows_aten(const LossChunk& chunk, at::Tensor& teacher, const at::Tensor& weights);
// One kernel of our own; both logits fp32 or both bf16.
void kl_rows_cuda(const LossChunk& chunk, at::Tensor& teacher, const at::Tensor& weights);

}  // namespace halo
