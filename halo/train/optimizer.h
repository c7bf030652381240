// One update of a store's weights from its gradients: norm, clipping, AdamW, and the decision to
// leave out an update that is not finite. All of it on the device.
#pragma once

#include <ATen/core/Tensor.h>

#include <vector>

#include "halo/model/parameters.h"
#include "halo/train/settings.h"

namespace halo {

class Optimizer {
 public:
  // Both must outlive this.
  Optimizer(ParameterStore& store, const TrainRecipe& recipe);

  // Device scalars.
  struct Update {
    at::Tensor norm;     // fp64: 2-norm of the whole gradient, before clipping
    at::Tensor applied;  // fp32: 0 where norm or loss is not finite and nothing was changed, else 1
  };
  // Update `step` = 1, 2, ...; a skipped one counts too. Gradients are multiplied by
  // min(1, clip/(norm + 1e-6)), with norm over all parameters or, in mode per-layer, over each
  // layer's (what belongs to no layer makes one group).
  Update step(int64_t step, double learning_rate, const at::Tensor& loss);

 private:
  // A part of the arenas, in elements.
  struct Range {
    int64_t begin = 0, size = 0;
  };
  at::Tensor clip_layers();

  ParameterStore& store_;
  const TrainRecipe& recipe_;
  std::vector<std::vector<Range>> layers_;  // per-layer clipping only
  at::Tensor decay_mask_;                   // undefined without decay
};

}  // namespace halo
