// How long a step with a checkpoint takes.
#pragma once

#include <filesystem>
#include <functional>

#include "halo/base/json.h"
#include "halo/train/background_saves.h"

namespace halo {

// One checkpoint of `store` that the training waits for and one that is written behind it, into
// `folder`, from which they go again: {"checkpoint_bytes", "step_seconds" (without one, median of
// three), "waiting_step_seconds" (with the first), "behind_step_seconds" (with the second),
// "beside_step_seconds" (of each step while it is written), "write_seconds" (of the second, from
// its step to the disk)}. `step` trains one; given something, it calls its before_update(). Called
// by all ranks of the store; an Error where `folder` has checkpoints.
json::object time_saves(const std::filesystem::path& folder, ParameterStore& store,
                        const std::function<void(BackgroundSaves*)>& step);

}  // namespace halo
