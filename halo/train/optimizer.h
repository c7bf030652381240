// One update of a store's weights from its gradients: their sum over the ranks, norm, clipping,
// AdamW, and the decision to leave out an update that is not finite. All of it on the device, and
// the same on every rank.
#pragma once

#include <ATen/core/Tensor.h>

#include <vector>

#include "halo/model/parameters.h"
#include "halo/runtime/communicator.h"
#include "halo/runtime/run_recipe.h"
#include "halo/train/settings.h"

namespace halo {

struct AdamWStep;

class Optimizer {
 public:
  // All must outlive this. With Shard::kOptimizer the store owns the range of its rank from now on.
  Optimizer(ParameterStore& store, const TrainRecipe& recipe, Communicator& ranks = one_rank(),
            Shard shard = Shard::kNone);

  // Device scalars.
  struct Update {
    at::Tensor norm;     // fp64: 2-norm of the gradient, summed over the ranks, before clipping
    at::Tensor applied;  // fp32: 0 where norm or loss is not finite and nothing was changed, else 1
  };
  // Update `step` = 1, 2, ...; a skipped one counts too. Gradients are multiplied by
  // min(1, clip/(norm + 1e-6)), with norm over all parameters or, in mode per-layer, over each
  // layer's (what belongs to no layer makes one group). `loss`: the ranks' together. The gradients
  // are not defined afterwards.
  Update step(int64_t step, double learning_rate, const at::Tensor& loss);

 private:
  using Ranges = std::vector<Range>;
  at::Tensor square_of(const Ranges& ranges) const;
  at::Tensor clip_layers();
  void update(const AdamWStep& args);

  ParameterStore& store_;
  const TrainRecipe& recipe_;
  Communicator& ranks_;
  const Range summed_;          // of the gradient, after its sum over the ranks; all on one rank
  at::Tensor grad_;             // the arena, padded to equal ranges where there are several ranks
  std::vector<Ranges> layers_;  // per-layer clipping only
  at::Tensor decay_mask_;       // of what the store owns; undefined without decay
};

}  // namespace halo
