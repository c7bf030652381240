// KL of rows of logits by the kernel of logit_rows.cu.
#include "ATen/ATen.h"
#include "halo/kernels/cuda/cuda_kernels.h"
#include "halo/kernels/linear_kl/kl_rows.h"
#include "halo/kernels/logit_loss/logit_rows_launch.h"

namespace halo {

void kl_rows_cuda(const LossChunk& chunk, at::Tensor& teacher, const at::Tensor& weights,
                  const CrossEntropyMix& mix) {
  const DeviceStream stream(chunk.logits);
  launch_kl_rows({.element = element_of(chunk.logits),
                  .rows = chunk.logits.size(0),
                  .columns = chunk.logits.size(1),
                  .gradient = chunk.gradient,
                  .student = chunk.logits.mutable_data_ptr(),
                  .teacher = teacher.const_data_ptr(),
                  .weights = weights.defined() ? weights.const_data_ptr<float>() : nullptr,
                  .targets = mix.share != 0 ? mix.targets.const_data_ptr<int64_t>() : nullptr,
                  .cross_entropy_share = static_cast<float>(mix.share),
                  .losses = chunk.losses.mutable_data_ptr<float>()},
                 stream.handle());
}

}  // namespace halo
