// A micro-batch on its way to a loss: sent to the device, then run; where the model is so small
// that a GPU waits for the host to launch its kernels, recorded once and launched as a whole from
// then on (docs/decisions/cuda-graphs.md).
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <vector>

#include "halo/data/loader.h"
#include "halo/model/context_part.h"
#include "halo/model/decoder.h"
#include "halo/runtime/machine.h"

namespace halo {

Batch to_batch(const TrainBatch& batch, const Machine& machine);

// What a loss reads, on the device.
struct LossInputs {
  Batch batch;
  at::Tensor targets, token_weights;  // [N], as in TrainBatch
  at::Tensor step_count;              // [] fp64: the step's counted tokens
};

// Adds gradients to its store; returns the figures of the micro-batch, detached. It may read
// nothing back from the device.
using Loss = std::function<at::Tensor(const LossInputs& inputs)>;

using ForwardBackward = std::function<at::Tensor(const TrainBatch& batch, int64_t step_count)>;

// What a loss runs and trains.
struct LossWeights {
  std::vector<LayerWeights> layers;       // all, of which a mixer may be the only part
  std::shared_ptr<LayerSharing> trained;  // by what is trained; none: on one rank
  ContextGroup group = {};                // the ranks that share batches
};

// The loss of batches as a loader gives them. Whether it is recorded the layers decide; nothing is
// where weights are fetched or ranks share batches: each of these is given the whole batch and runs
// the loss on its part.
ForwardBackward forward_backward_of(Loss loss, const LossWeights& weights, const Machine& machine);

}  // namespace halo
