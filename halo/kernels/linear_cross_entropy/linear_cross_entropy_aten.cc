// Cross-entropy of rows of logits in LibTorch operations; no value is read back from the device.
#include "ATen/ATen.h"
#include "halo/kernels/linear_cross_entropy/cross_entropy_rows.h"
#include "halo/kernels/linear_cross_entropy/linear_cross_entropy.h"

namespace halo {

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

}  // namespace halo
