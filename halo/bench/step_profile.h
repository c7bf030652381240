// Where the time of a step goes on a GPU.
#pragma once

#include <functional>

#include "halo/base/json.h"

namespace halo {

// Runs `step` once under CUPTI (through LibTorch's profiler) and sorts the time of its kernels by
// what they do: {"wall_seconds" (from the first kernel's start to the last one's end), "kernels"
// (how many), "shares" of the wall time: {"matrix products", "attention", "lightning", "loss",
// "optimiser", "copies", "elementwise", "idle" (1 - the union of all of them)}, "longest": a list
// of {"name", "share", "count"}}. Kernels of several streams can overlap, so shares may sum to
// more than 1. `step` must not wait for the device.
json::object profile_step(const std::function<void()>& step);

}  // namespace halo
