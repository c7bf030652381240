// Where a run is, at any moment: while it works, after a failure, a stop or a kill.
#pragma once

#include <filesystem>
#include <string>

#include "halo/base/json.h"

namespace halo {

// {"run", "state": "running" | "done" | "failed" | "stopped" | "killed" | "unfinished", "why" (of a
// failure or stop), "process" (that works there), "stage" (that runs, or was to), "stages": list,
// "stale": {"what", "why"} of the first part that is not made of the recipe, teacher and data as
// they are now, where nobody works there, "versions" (other ones that made stages), "disk_bytes"}.
// Of each stage that the recipe wants: {"stage", "state": "done" | "failed" | "begun" | "waiting",
// "disk_bytes"} and what there is of {"step", "steps", "tokens_per_second", "seconds_left", "gate"
// (result.json's)}.
json::object run_status(const std::filesystem::path& run);

// The same for people.
std::string format_status(const json::object& status);

}  // namespace halo
