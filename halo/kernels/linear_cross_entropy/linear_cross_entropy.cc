// Checks, choice of form, and the loop over chunks of rows.
#include "halo/kernels/linear_cross_entropy/linear_cross_entropy.h"

#include "ATen/ATen.h"
#include "halo/base/check.h"
#include "halo/kernels/cuda/cuda_kernels.h"
#include "halo/kernels/linear_cross_entropy/cross_entropy_rows.h"
#include "halo/kernels/logit_loss/chunked_loss.h"

namespace halo {
namespace {

ChunkLoss cross_entropy(const at::Tensor& targets, const at::Tensor& weights) {
  return [targets, weights](const LossChunk& chunk) {
    const auto chunk_targets = targets.narrow(0, chunk.first, chunk.logits.size(0));
    auto form = chunk.logits.is_cpu() ? cross_entropy_rows_cpu : cross_entropy_rows_aten;
    if (has_cuda_kernels(CudaKernels::kLossRows, chunk.logits)) form = cross_entropy_rows_cuda;
    form(chunk, chunk_targets, chunk_weights(weights, chunk));
  };
}

}  // namespace

void check_targets(const char* loss, const at::Tensor& hidden, const at::Tensor& head,
                   const at::Tensor& targets) {
  HALO_CHECK(targets.dim() == 1 && targets.size(0) == hidden.size(0) &&
                 targets.scalar_type() == at::kLong && targets.is_contiguous(),
             "{}: targets must be {} contiguous int64 values", loss, hidden.size(0));
  // On a GPU the gather of the LibTorch form stops on these, and our kernel gives such rows NaN.
  if (!targets.is_cpu()) return;
  const int64_t* values = targets.const_data_ptr<int64_t>();
  for (int64_t n = 0; n < targets.numel(); ++n) {
    HALO_CHECK(values[n] == kIgnoreTarget || (values[n] >= 0 && values[n] < head.size(0)),
               "{}: target {} of token {} is outside the vocabulary of {}", loss, values[n], n,
               head.size(0));
  }
}

at::Tensor linear_cross_entropy(const at::Tensor& hidden, const Weight& head,
                                const at::Tensor& targets, const at::Tensor& weights) {
  check_targets("linear_cross_entropy", hidden, head.value, targets);
  check_row_weights("linear_cross_entropy", weights, targets.size(0));
  return chunked_loss(hidden, head, cross_entropy(targets, weights));
}

at::Tensor token_losses(const at::Tensor& hidden, const at::Tensor& head, const at::Tensor& targets,
                        Kernels kernels) {
  check_targets("linear_cross_entropy", hidden, head, targets);
  if (kernels == Kernels::kFast) {
    return chunked_row_losses(hidden, head, cross_entropy(targets, {}));
  }
  HALO_CHECK(hidden.is_cpu(), "token_losses: the reference form runs on the CPU only");
  at::NoGradGuard no_grad;
  return token_losses_reference(hidden, head, targets);
}

}  // namespace halo
