// Whether a conversion fits the memory of a machine, and which settings would make it fit.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "halo/base/check.h"
#include "halo/base/json.h"
#include "halo/pipeline/links.h"
#include "halo/pipeline/recipe.h"
#include "halo/runtime/machine.h"

namespace halo {

// A recipe is valid and needs more than the machine has. Exit code 4.
class DoesNotFit : public Error {
 public:
  using Error::Error;
};

// A machine that a recipe is held against.
struct Capacity {
  std::string machine;       // for people
  int64_t memory_bytes = 0;  // all of it
  Rates rates = 0;
  Links links = {};                // to others of its kind, where ranks are to be several
  int64_t compute_capability = 0;  // of a GPU, the major part (9: Hopper); 0: not known

  // What tensors may take: the rest is the CUDA context's, libraries' workspaces and what the
  // allocator cannot use, or the operating system's.
  int64_t usable_bytes() const { return memory_bytes / 100 * 95; }
};

// Of the device that a recipe asks for. If that is a GPU and there is none here: of an H200.
Capacity measure_capacity(const RunRecipe& run);

// Of a GPU by its name ("h100", see card_names), none of which need be here. An Error that names
// the nearest if it is unknown, and if the recipe computes on the CPU.
Capacity card_capacity(const std::string& name, const RunRecipe& run);
std::vector<std::string> card_names();

// GB/s of the memory of the device that calls itself so ("NVIDIA A100-SXM4-40GB") and has so much,
// by its data sheet; 0 of one that is none of card_names().
double memory_rate_of(const std::string& device, int64_t memory_bytes);

// Settings, as --set takes them, with which `stage` ("distill") needs at most `bytes` on each rank;
// those that cost least time. Nothing if no settings do.
std::optional<std::vector<std::string>> settings_that_fit(const Recipe& recipe,
                                                          const std::string& stage, int64_t bytes);

// The settings with which every stage of a recipe on several ranks fits, as few as will do, and
// nothing where none would: run.shard, activation checkpointing, rows at a time.
std::optional<std::vector<std::string>> cheapest_setting(const Recipe& recipe,
                                                         const Capacity& capacity);

// What a recipe asks for and a GPU of this name and compute capability does not have, in a sentence
// that names the key; empty: nothing, or the capability is not known (0).
std::string lacking(const Recipe& recipe, const std::string& device, int64_t compute_capability);
int64_t compute_capability(const Machine& machine);  // the same of one that is open; 0: a CPU

// {machine, memory_bytes, usable_bytes, fits, lacks (lacking(); null: nothing), stages}; of each
// stage that does not fit {stage, memory_bytes, settings (null: none would do), least_bytes (with
// the most sparing settings)}. `plan` is that of the recipe (plan.h).
json::object check_fit(const Recipe& recipe, const json::object& plan, const Capacity& capacity);

// The same for people.
std::string format_fit(const json::object& fit);

}  // namespace halo
