// KL of rows of logits in LibTorch operations; no value is read back from the device.
#include "ATen/ATen.h"
#include "halo/kernels/linear_cross_entropy/linear_cross_entropy.h"
#include "halo/kernels/linear_kl/kl_rows.h"

namespace halo {

void kl_rows_aten(const LossChunk& chunk, at::Tensor& teacher, const at::Tensor& weights,
                  const CrossEntropyMix& mix) {
  at::Tensor logits = chunk.logits;
  const auto log_teacher = at::log_softmax(teacher, 1);
  const auto log_student = at::log_softmax(logits, 1);
  at::Tensor p_teacher = at::exp_out(teacher, log_teacher);
  at::Tensor losses = (p_teacher * (log_teacher - log_student)).sum(1, /*keepdim=*/true);
  at::Tensor index, share;
  if (mix.share != 0) {
    index = mix.targets.clamp_min(0).unsqueeze(1);
    share = mix.targets.ne(kIgnoreTarget).to(logits.scalar_type()).mul_(mix.share).unsqueeze_(1);
    losses.sub_(share * (losses + log_student.gather(1, index)));
    p_teacher.mul_(1 - share).scatter_add_(1, index, share);
  }
  if (weights.defined()) losses.mul_(weights.unsqueeze(1));
  chunk.losses.copy_(losses.squeeze(1));
  if (!chunk.gradient) return;
  at::exp_out(logits, log_student).sub_(p_teacher);
  if (weights.defined()) logits.mul_(weights.unsqueeze(1));
}

// In fp32 at least: logits may be bf16, and what is subtracted nearly equal.
void reverse_kl_rows(const LossChunk& chunk, const at::Tensor& teacher, const at::Tensor& weights) {
  const auto type = at::promote_types(chunk.logits.scalar_type(), at::kFloat);
  const at::Tensor log_student = at::log_softmax(chunk.logits.to(type), 1);
  at::Tensor ratio = log_student - at::log_softmax(teacher.to(type), 1);
  at::Tensor p_student = log_student.exp();
  at::Tensor losses = (p_student * ratio).sum(1, /*keepdim=*/true);
  ratio.sub_(losses);
  if (weights.defined()) {
    losses.mul_(weights.unsqueeze(1));
    p_student.mul_(weights.unsqueeze(1));
  }
  chunk.losses.copy_(losses.squeeze(1));
  if (!chunk.gradient) return;
  at::Tensor logits = chunk.logits;
  logits.copy_(p_student.mul_(ratio));
}

}  // namespace halo
