// Comparison of a checkpoint with the run that resumes it.
#include "halo/train/resume.h"

#include <set>

#include "ATen/Parallel.h"
#include "halo/base/check.h"
#include "halo/base/fields.h"

namespace halo {
namespace {

// Keys of the recipe that decide which tokens a step reads, and those that do not touch the result.
const std::set<std::string> kData = {"sequence_length", "tokens_per_step"};
const std::set<std::string> kFree = {"checkpoint_every", "keep", "diverged_factor"};

}  // namespace

TrainState describe(const TrainJob& job, int64_t step) {
  TrainState state;
  state.stage = job.stage;
  state.step = step;
  state.tokens = step * job.recipe.tokens_per_step;
  state.seed = job.seed;
  state.data_id = job.data_id;
  state.recipe = fields_to_json(job.recipe);
  for (const auto& [name, value] : job.objective) state.recipe[name] = value;
  state.threads = at::get_num_threads();
  state.device = c10::DeviceTypeName(job.store->master().device().type(), /*lower_case=*/true);
  state.kernels = job.kernels == Kernels::kFast ? "fast" : "reference";
  return state;
}

std::vector<std::string> check_resume(const TrainState& was, const TrainState& is,
                                      const std::string& from) {
  std::vector<std::string> warnings;
  const auto refuse = [&](const std::string& what, const auto& before, const auto& now) {
    if (before == now) return;
    throw_error("{}: was made with {} {}, this run has {}; use a new run folder", from, what,
                before, now);
  };
  const auto note = [&](const std::string& what, const auto& before, const auto& now) {
    if (before == now) return;
    warnings.push_back(fmt::format(
        "resumed with {} {} where the checkpoint has {}: the result is not that of an unbroken run",
        what, now, before));
  };
  refuse("stage", was.stage, is.stage);
  refuse("seed", was.seed, is.seed);
  refuse("data", was.data_id, is.data_id);
  for (const auto& [name, value] : is.recipe) {
    const std::string key = name;
    const json::value* old = was.recipe.if_contains(name);
    const std::string before = old ? json::serialize(*old) : "none", now = json::serialize(value);
    if (kData.count(key)) {
      refuse(key, before, now);
    } else if (!kFree.count(key)) {
      note(key, before, now);
    }
  }
  note("threads", was.threads, is.threads);
  note("device", was.device, is.device);
  note("kernels", was.kernels, is.kernels);
  return warnings;
}

}  // namespace halo
