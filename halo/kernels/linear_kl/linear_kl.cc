// Checks, choice of form, and the form in LibTorch operations (no value is read back from the
// device).
#include "halo/kernels/linear_kl/linear_kl.h"

#include <memory>
#include <optional>

#include "ATen/ATen.h"
#include "halo/base/check.h"
#include "halo/kernels/chunked_loss.h"
#include "halo/kernels/cuda/cuda_form.h"
#include "halo/kernels/linear_kl/kl_rows.h"
#include "halo/kernels/logit_rows_launch.h"

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

ChunkLoss kl(const at::Tensor& teacher_hidden, const at::Tensor& teacher_head,
             const at::Tensor& weights) {
  // Detached, for the teacher takes no gradient. Its logits have the type of the student's, which
  // the first chunk shows. Shared, for a std::function must be copyable.
  const at::Tensor hidden = teacher_hidden.detach(), head = teacher_head.detach();
  auto teacher = std::make_shared<std::optional<ChunkLogits>>();
  return [hidden, head, teacher, weights](const LossChunk& chunk) {
    const int64_t rows = chunk.logits.size(0);
    if (!*teacher) teacher->emplace(hidden, head, chunk.logits.scalar_type());
    auto teacher_logits = (*teacher)->rows(chunk.first, rows);
    auto form = chunk.logits.is_cpu() ? kl_rows_cpu : kl_rows_aten;
    if (has_cuda_form(CudaKernels::kLossRows, chunk.logits)) form = kl_rows_cuda;
    form(chunk, teacher_logits, chunk_weights(weights, chunk));
  };
}

}  // namespace

void kl_rows_aten(const LossChunk& chunk, at::Tensor& teacher, const at::Tensor& weights) {
  at::Tensor logits = chunk.logits;
  const auto log_teacher = at::log_softmax(teacher, 1);
  const auto log_student = at::log_softmax(logits, 1);
  const auto p_teacher = at::exp_out(teacher, log_teacher);
  at::Tensor losses = (p_teacher * (log_teacher - log_student)).sum(1);
  if (weights.defined()) losses.mul_(weights);
  chunk.losses.copy_(losses);
  if (!chunk.gradient) return;
  at::exp_out(logits, log_student).sub_(p_teacher);
  if (weights.defined()) logits.mul_(weights.unsqueeze(1));
}

void kl_rows_cuda(const LossChunk& chunk, at::Tensor& teacher, const at::Tensor& weights) {
  const DeviceStream stream(chunk.logits);
  launch_kl_rows({.element = element_of(chunk.logits),
                  .rows = chunk.logits.size(0),
                  .columns = chunk.logits.size(1),
                  .gradient = chunk.gradient,
                  .student = chunk.logits.mutable_data_ptr(),
                  .teacher = teacher.const_data_ptr(),
                  .weights = weights.defined() ? weights.const_data_ptr<float>() : nullptr,
                  .losses = chunk.losses.mutable_data_ptr<float>()},
                 stream.handle());
}

at::Tensor linear_kl(const at::Tensor& hidden, const Weight& head, const at::Tensor& teacher_hidden,
                     const at::Tensor& teacher_head, const at::Tensor& weights) {
  check_teacher(hidden, head.value, teacher_hidden, teacher_head);
  check_row_weights("linear_kl", weights, hidden.size(0));
  return chunked_loss(hidden, head, kl(teacher_hidden, teacher_head, weights));
}

at::Tensor token_kl(const at::Tensor& hidden, const at::Tensor& head,
                    const at::Tensor& teacher_hidden, const at::Tensor& teacher_head) {
  check_teacher(hidden, head, teacher_hidden, teacher_head);
  return chunked_row_losses(hidden, head, kl(teacher_hidden, teacher_head, {}));
}

}  // namespace halo
