// KL of rows of logits, in place: the form for each device. Internal.
#pragma once

#include <ATen/core/Tensor.h>

#include "halo/kernels/chunked_loss.h"

namespace halo {

// chunk.losses = sum_v p_teacher (ln p_teacher - ln p_student), 0 where not counted; where
// chunk.gradient, logits = p_student - p_teacher, 0 where not counted. teacher [n, V], of the
// logits' type, is scratch space afterwards; counted [n] bool or undefined: those of the chunk's
// rows.
void kl_rows_cpu(const LossChunk& chunk, at::Tensor& teacher, const at::Tensor& counted);
void kl_rows_aten(const LossChunk& chunk, at::Tensor& teacher, const at::Tensor& counted);
// One kernel of our own; both logits fp32 or both bf16.
void kl_rows_cuda(const LossChunk& chunk, at::Tensor& teacher, const at::Tensor& counted);

}  // namespace halo
