// One update of a store's weights from its gradients: norm, clipping, AdamW, and the decision to
// leave out an update that is not finite. All of it on the device, and the same on every rank.
#pragma once

#include <ATen/core/Tensor.h>

#include "halo/model/parameters.h"
#include "halo/train/settings.h"

namespace halo {

struct AdamWStep;

class Optimizer {
 public:
  // Both must outlive this.
  Optimizer(ParameterStore& store, const TrainRecipe& recipe);

  // Device scalars.
  struct Update {
    at::Tensor norm;     // fp64: 2-norm of the gradient, summed over the ranks, before clipping
    at::Tensor applied;  // fp32: 0 where norm or loss is not finite and nothing was changed, else 1
  };
  // Update `step` = 1, 2, ...; a skipped one counts too. Gradients are multiplied by
  // min(1, clip/(norm + 1e-6)), with norm over all parameters or, in mode per-layer, over each
  // layer's (what belongs to no layer together). `loss`: the ranks' together. The gradients
  // are not defined afterwards.
  Update step(int64_t step, double learning_rate, const at::Tensor& loss);

 private:
  at::Tensor squares() const;
  void update(AdamWStep args, const at::Tensor& factors);

  ParameterStore& store_;
  const TrainRecipe& recipe_;
  at::Tensor decay_mask_;  // as the store's master; undefined without decay
};

}  // namespace halo
