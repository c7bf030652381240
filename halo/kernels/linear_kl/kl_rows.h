// KL of rows of logits, in place: the form for each device. Internal.
#pragma once

#include <ATen/core/Tensor.h>

#include "halo/kernels/linear_kl/linear_kl.h"
#include "halo/kernels/logit_loss/chunked_loss.h"

namespace halo {

// chunk.losses = weight ((1 - m) sum_v p_teacher (ln p_teacher - ln p_student) - m ln
// p_student[y]), y the row's target and m the mix's share, 0 without a target; where
// chunk.gradient, logits = weight (p_student - (1 - m) p_teacher - m [v = y]). teacher [n, V], of
// the logits' type, is scratch space afterwards; weights [n] fp32 or undefined, and the mix's
// targets: those of the chunk's rows.
void kl_rows_cpu(const LossChunk& chunk, at::Tensor& teacher, const at::Tensor& weights,
                 const CrossEntropyMix& mix = {});
void kl_rows_aten(const LossChunk& chunk, at::Tensor& teacher, const at::Tensor& weights,
                  const CrossEntropyMix& mix = {});
// Of the reverse KL: chunk.losses = weight KL, KL = sum_v p_student (ln p_student - ln p_teacher);
// where chunk.gradient, logits = weight p_student (ln p_student - ln p_teacher - KL).
void reverse_kl_rows(const LossChunk& chunk, const at::Tensor& teacher, const at::Tensor& weights);
// One kernel of our own; both logits fp32 or both bf16.
void kl_rows_cuda(const LossChunk& chunk, at::Tensor& teacher, const at::Tensor& weights,
                  const CrossEntropyMix& mix = {});

}  // namespace halo
