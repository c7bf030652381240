// Checks, choice of form, and the form in LibTorch operations (no value is read back from the
// device).
#include "halo/kernels/linear_kl/linear_kl.h"

#include <memory>

#include "ATen/ATen.h"
#include "halo/base/check.h"
#include "halo/kernels/chunked_loss.h"
#include "halo/kernels/linear_kl/kl_rows.h"

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
             const at::Tensor& counted) {
  // Shared, for a std::function must be copyable; detached, for the teacher takes no gradient.
  auto teacher = std::make_shared<ChunkLogits>(teacher_hidden.detach(), teacher_head.detach());
  return [teacher, counted](const LossChunk& chunk) {
    const int64_t rows = chunk.logits.size(0);
    auto teacher_logits = teacher->rows(chunk.first, rows);
    const auto chunk_counted =
        counted.defined() ? counted.narrow(0, chunk.first, rows) : at::Tensor();
    const auto form = chunk.logits.is_cpu() ? kl_rows_cpu : kl_rows_aten;
    form(chunk, teacher_logits, chunk_counted);
  };
}

}  // namespace

void kl_rows_aten(const LossChunk& chunk, at::Tensor& teacher, const at::Tensor& counted) {
  at::Tensor logits = chunk.logits;
  const auto log_teacher = at::log_softmax(teacher, 1);
  const auto log_student = at::log_softmax(logits, 1);
  const auto p_teacher = at::exp_out(teacher, log_teacher);
  at::Tensor losses = (p_teacher * (log_teacher - log_student)).sum(1);
  if (counted.defined()) losses.masked_fill_(counted.logical_not(), 0);
  chunk.losses.copy_(losses);
  if (!chunk.gradient) return;
  at::exp_out(logits, log_student).sub_(p_teacher);
  if (counted.defined()) logits.masked_fill_(counted.logical_not().unsqueeze(1), 0);
}

at::Tensor linear_kl(const at::Tensor& hidden, const Weight& head, const at::Tensor& teacher_hidden,
                     const at::Tensor& teacher_head, const at::Tensor& counted) {
  check_teacher(hidden, head.value, teacher_hidden, teacher_head);
  HALO_CHECK(!counted.defined() || (counted.dim() == 1 && counted.size(0) == hidden.size(0) &&
                                    counted.scalar_type() == at::kBool && counted.is_contiguous()),
             "linear_kl: counted must be {} contiguous bool values", hidden.size(0));
  return chunked_loss(hidden, head, kl(teacher_hidden, teacher_head, counted));
}

at::Tensor token_kl(const at::Tensor& hidden, const at::Tensor& head,
                    const at::Tensor& teacher_hidden, const at::Tensor& teacher_head) {
  check_teacher(hidden, head, teacher_hidden, teacher_head);
  return chunked_row_losses(hidden, head, kl(teacher_hidden, teacher_head, {}));
}

}  // namespace halo
