// Checks, choice of form, and the forms in plain arithmetic: LibTorch operations (no value is read
// back from the device) and the fixed-order rows of KernelForm::kReference.
#include "halo/kernels/linear_cross_entropy/linear_cross_entropy.h"

#include <algorithm>
#include <cmath>

#include "ATen/ATen.h"
#include "ATen/Parallel.h"
#include "halo/base/check.h"
#include "halo/kernels/chunked_loss.h"
#include "halo/kernels/cuda/cuda_form.h"
#include "halo/kernels/linear/linear.h"
#include "halo/kernels/linear_cross_entropy/cross_entropy_rows.h"
#include "halo/kernels/logit_rows_launch.h"

namespace halo {
namespace {

ChunkLoss cross_entropy(const at::Tensor& targets, const at::Tensor& weights) {
  return [targets, weights](const LossChunk& chunk) {
    const auto chunk_targets = targets.narrow(0, chunk.first, chunk.logits.size(0));
    auto form = chunk.logits.is_cpu() ? cross_entropy_rows_cpu : cross_entropy_rows_aten;
    if (has_cuda_form(CudaKernels::kLossRows, chunk.logits)) form = cross_entropy_rows_cuda;
    form(chunk, chunk_targets, chunk_weights(weights, chunk));
  };
}

// One row in the order of its columns.
float reference_row_loss(const float* logits, int64_t columns, int64_t target) {
  const float most = *std::max_element(logits, logits + columns);
  double sum = 0;
  for (int64_t v = 0; v < columns; ++v) sum += std::exp(double{logits[v]} - most);
  return static_cast<float>(std::log(sum) + most - logits[target]);
}

at::Tensor reference_token_losses(const at::Tensor& hidden, const at::Tensor& head,
                                  const at::Tensor& targets) {
  const int64_t rows = hidden.size(0), columns = head.size(0);
  const int64_t step = rows_per_chunk(columns, /*cpu=*/true);
  auto losses = at::zeros({rows}, at::kFloat);
  float* loss = losses.mutable_data_ptr<float>();
  const int64_t* target = targets.const_data_ptr<int64_t>();
  for (int64_t first = 0; first < rows; first += step) {
    const auto chunk = hidden.narrow(0, first, std::min(step, rows - first));
    const auto logits = linear(chunk, Weight{head, {}}, Weight{}, KernelForm::kReference)
                            .to(at::kFloat)
                            .contiguous();
    const float* logit = logits.const_data_ptr<float>();
    at::parallel_for(0, chunk.size(0), 1, [&](int64_t begin, int64_t end) {
      for (int64_t n = begin; n < end; ++n) {
        if (target[first + n] == kIgnoreTarget) continue;
        loss[first + n] = reference_row_loss(logit + n * columns, columns, target[first + n]);
      }
    });
  }
  return losses;
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

void cross_entropy_rows_aten(const LossChunk& chunk, const at::Tensor& targets,
                             const at::Tensor& weights) {
  at::Tensor logits = chunk.logits;
  const auto index = targets.clamp_min(0).unsqueeze(1);
  auto weight = targets.ne(kIgnoreTarget).to(logits.scalar_type());
  if (weights.defined()) weight.mul_(weights);
  weight.unsqueeze_(1);
  logits.sub_(logits.amax(1, /*keepdim=*/true));
  const auto at_target = logits.gather(1, index);
  const auto sum = logits.exp_().sum(1, /*keepdim=*/true);
  chunk.losses.copy_((weight * (sum.log() - at_target)).squeeze(1));
  if (chunk.gradient) logits.mul_(weight / sum).scatter_add_(1, index, -weight);
}

void cross_entropy_rows_cuda(const LossChunk& chunk, const at::Tensor& targets,
                             const at::Tensor& weights) {
  const DeviceStream stream(chunk.logits);
  launch_cross_entropy_rows(
      {.element = element_of(chunk.logits),
       .rows = chunk.logits.size(0),
       .columns = chunk.logits.size(1),
       .gradient = chunk.gradient,
       .logits = chunk.logits.mutable_data_ptr(),
       .targets = targets.const_data_ptr<int64_t>(),
       .weights = weights.defined() ? weights.const_data_ptr<float>() : nullptr,
       .losses = chunk.losses.mutable_data_ptr<float>()},
      stream.handle());
}

at::Tensor linear_cross_entropy(const at::Tensor& hidden, const Weight& head,
                                const at::Tensor& targets, const at::Tensor& weights) {
  check_targets("linear_cross_entropy", hidden, head.value, targets);
  check_row_weights("linear_cross_entropy", weights, targets.size(0));
  return chunked_loss(hidden, head, cross_entropy(targets, weights));
}

at::Tensor token_losses(const at::Tensor& hidden, const at::Tensor& head, const at::Tensor& targets,
                        KernelForm form) {
  check_targets("linear_cross_entropy", hidden, head, targets);
  if (form == KernelForm::kFast) {
    return chunked_row_losses(hidden, head, cross_entropy(targets, {}));
  }
  HALO_CHECK(hidden.is_cpu(), "token_losses: the reference form runs on the CPU only");
  at::NoGradGuard no_grad;
  return reference_token_losses(hidden, head, targets);
}

}  // namespace halo
