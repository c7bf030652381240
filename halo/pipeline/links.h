// How long ranks take to tell each other what they computed: a prediction, from what their links
// carry.
#pragma once

#include <cstdint>

#include "halo/pipeline/cost.h"
#include "halo/runtime/run_recipe.h"

namespace halo {

// GB/s that a GPU sends and receives at once in a collective, and seconds that a message takes.
struct Links {
  double in_node = 0;   // between GPUs of a machine
  double network = 50;  // between machines, for each GPU: InfiniBand of 400 Gbit/s
  int64_t node = 8;     // GPUs of a machine
  double latency = 1e-5;
};

// Of all ranks together, `bytes` being those of the whole tensor: a ring, or where that is faster a
// tree, as NCCL chooses.
double gather_seconds(const Links& links, int64_t ranks, double bytes);

// Of an all-to-all among groups of consecutive ranks, of which each has `bytes`.
double exchange_seconds(const Links& links, int64_t group, double bytes);

// Seconds a step that ranks talk: while all wait, and beside what they compute, which is this share
// of a step's computation.
struct StepTalk {
  double before = 0, beside = 0, share_beside = 1;
};
// Gradients are summed in the last micro-batch of a step and weights given out a step; with
// Shard::kFull gradients are summed in each, and layers of both models fetched for each use.
StepTalk step_talk(const Links& links, int64_t ranks, Shard shard, const StageCost& cost,
                   int64_t compute_bytes, int64_t micro_batches);

}  // namespace halo
