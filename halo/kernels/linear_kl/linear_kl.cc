// Checks, choice of form, and the loop over chunks of rows.
#include "halo/kernels/linear_kl/linear_kl.h"

#include <memory>
#include <optional>

#include "ATen/ATen.h"
#include "halo/base/check.h"
#include "halo/kernels/cuda/cuda_kernels.h"
#include "halo/kernels/linear_cross_entropy/cross_entropy_rows.h"
#include "halo/kernels/linear_cross_entropy/linear_cross_entropy.h"
#include "halo/kernels/linear_kl/kl_rows.h"
#include "halo/kernels/logit_loss/chunked_loss.h"

namespace halo {
namespace {

void check_teacher(const at::Tensor& hidden, const at::Tensor& head,
                   const at::Tensor& teacher_hidden, const at::Tensor& teacher_head) {
  HALO_CHECK(teacher_hidden.size(0) == hidden.size(0),
             "linear_kl: {} tokens of the student, {} of the teacher", hidden.size(0),
             teacher_hidden.size(0));
  HALO_CHECK(teacher_head.size(0) == head.size(0),
             "linear_kl: the student's vocabulary has {} tokens, the teacher's {}", head.size(0),
             teacher_head.size(0));
}

CrossEntropyMix chunk_mix(const CrossEntropyMix& mix, const LossChunk& chunk) {
  if (mix.share == 0) return {};
  return {mix.targets.narrow(0, chunk.first, chunk.logits.size(0)), mix.share};
}

// The teacher's logits of a chunk's rows, of the type of the student's.
std::function<at::Tensor(const LossChunk&)> logits_of(const at::Tensor& teacher_hidden,
                                                      const at::Tensor& teacher_head) {
  // Detached, for the teacher takes no gradient. The type is what the first chunk shows. Shared,
  // for a std::function must be copyable.
  const at::Tensor hidden = teacher_hidden.detach(), head = teacher_head.detach();
  auto teacher = std::make_shared<std::optional<ChunkLogits>>();
  return [hidden, head, teacher](const LossChunk& chunk) {
    if (!*teacher) teacher->emplace(hidden, head, chunk.logits.scalar_type());
    return (*teacher)->rows(chunk.first, chunk.logits.size(0));
  };
}

ChunkLoss kl(const at::Tensor& teacher_hidden, const at::Tensor& teacher_head,
             const at::Tensor& weights, const CrossEntropyMix& mix) {
  const auto teacher = logits_of(teacher_hidden, teacher_head);
  return [teacher, weights, mix](const LossChunk& chunk) {
    at::Tensor teacher_logits = teacher(chunk);
    auto form = chunk.logits.is_cpu() ? kl_rows_cpu : kl_rows_aten;
    if (has_cuda_kernels(CudaKernels::kLossRows, chunk.logits)) form = kl_rows_cuda;
    form(chunk, teacher_logits, chunk_weights(weights, chunk), chunk_mix(mix, chunk));
  };
}

}  // namespace

at::Tensor linear_kl(const at::Tensor& hidden, const Weight& head, const at::Tensor& teacher_hidden,
                     const at::Tensor& teacher_head, const at::Tensor& weights,
                     const CrossEntropyMix& mix) {
  check_teacher(hidden, head.value, teacher_hidden, teacher_head);
  check_row_weights("linear_kl", weights, hidden.size(0));
  HALO_CHECK(0 <= mix.share && mix.share <= 1,
             "linear_kl: cross-entropy has a share of {}, expected 0 to 1", mix.share);
  if (mix.share != 0) check_targets("linear_kl", hidden, head.value, mix.targets);
  return chunked_loss(hidden, head, kl(teacher_hidden, teacher_head, weights, mix));
}

at::Tensor linear_reverse_kl(const at::Tensor& hidden, const Weight& head,
                             const at::Tensor& teacher_hidden, const at::Tensor& teacher_head,
                             const at::Tensor& weights) {
  check_teacher(hidden, head.value, teacher_hidden, teacher_head);
  check_row_weights("linear_reverse_kl", weights, hidden.size(0));
  const auto teacher = logits_of(teacher_hidden, teacher_head);
  return chunked_loss(hidden, head, [teacher, weights](const LossChunk& chunk) {
    reverse_kl_rows(chunk, teacher(chunk), chunk_weights(weights, chunk));
  });
}

at::Tensor token_kl(const at::Tensor& hidden, const at::Tensor& head,
                    const at::Tensor& teacher_hidden, const at::Tensor& teacher_head) {
  check_teacher(hidden, head, teacher_hidden, teacher_head);
  return chunked_row_losses(hidden, head, kl(teacher_hidden, teacher_head, {}, {}));
}

}  // namespace halo
