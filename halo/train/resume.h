// What a checkpoint must have in common with the run that goes on from it.
#pragma once

#include <string>
#include <vector>

#include "halo/train/checkpoint.h"
#include "halo/train/loop.h"

namespace halo {

// The job after `step` updates, on this machine.
TrainState describe(const TrainJob& job, int64_t step);

// `was`: the checkpoint's state, read from `from`; `is`: this run's. Another stage, seed, data or
// step size is an Error (the batches would be others); whatever else changes the result's bits is a
// warning each, which says what it was.
std::vector<std::string> check_resume(const TrainState& was, const TrainState& is,
                                      const std::string& from);

}  // namespace halo
