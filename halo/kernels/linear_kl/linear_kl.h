// KL of the student's next-token distribution from the teacher's, from hidden states, a chunk of
// rows at a time (hypenet.md 2.2, stage 2).
#pragma once

#include "halo/kernels/common/weight.h"

namespace halo {

// A token's loss with cross-entropy mixed in: (1 - share) KL + share (-ln p_student[target]).
struct CrossEntropyMix {
  at::Tensor targets;  // [N] int64; a token whose target is kIgnoreTarget keeps its KL whole
  double share = 0;    // from 0, where `targets` may be undefined, to 1
};

// Sum over tokens n of weight_n sum_v p_teacher (ln p_teacher - ln p_student), fp32 scalar. hidden
// [N, D], head.value [V, D]; teacher_hidden [N, D'], teacher_head [V, D']; weights [N] fp32
// (undefined: all 1). Gradients reach the student's hidden and head.grad (fp32) only.
at::Tensor linear_kl(const at::Tensor& hidden, const Weight& head, const at::Tensor& teacher_hidden,
                     const at::Tensor& teacher_head, const at::Tensor& weights,
                     const CrossEntropyMix& mix = {});

// The same the other way round: sum over v of p_student (ln p_student - ln p_teacher), of which a
// token the student may say and the teacher would not costs most. LibTorch's operations on every
// device.
at::Tensor linear_reverse_kl(const at::Tensor& hidden, const Weight& head,
                             const at::Tensor& teacher_hidden, const at::Tensor& teacher_head,
                             const at::Tensor& weights);

// The KL of every token, [N] fp32. No gradients.
at::Tensor token_kl(const at::Tensor& hidden, const at::Tensor& head,
                    const at::Tensor& teacher_hidden, const at::Tensor& teacher_head);

}  // namespace halo
