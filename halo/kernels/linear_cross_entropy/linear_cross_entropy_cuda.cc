// Cross-entropy of rows of logits by the kernel of logit_rows.cu.
#include "ATen/ATen.h"
#include "halo/kernels/cuda/cuda_kernels.h"
#include "halo/kernels/linear_cross_entropy/cross_entropy_rows.h"
#include "halo/kernels/logit_loss/logit_rows_launch.h"

namespace halo {

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

}  // namespace halo
