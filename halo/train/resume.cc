// Comparison of a checkpoint with the run that resumes it.
#include "halo/train/resume.h"

#include "ATen/Parallel.h"
#include "halo/base/check.h"
#include "halo/base/settings_io.h"
#include "halo/runtime/run_recipe.h"

namespace halo {
namespace {

// A checkpoint's record, read into the settings of the stage; returns what is the objective's.
json::object read_record(const json::object& record, TrainRecipe& recipe, const std::string& from) {
  const Settings settings = settings_of(recipe);
  json::object known, objective;
  for (const auto& [key, value] : record) {
    (settings.find(key) || settings.find_old(key) ? known : objective)[key] = value;
  }
  read_json_settings(settings, known, from);
  return objective;
}

}  // namespace

TrainState describe(const TrainJob& job, int64_t step) {
  TrainState state;
  state.stage = job.stage;
  state.step = step;
  state.tokens = step * job.recipe.tokens_per_step;
  state.seed = job.seed;
  state.data_id = job.data_id;
  state.recipe = to_json(job.recipe);
  for (const auto& [name, value] : job.objective) state.recipe[name] = value;
  state.threads = at::get_num_threads();
  state.ranks = job.store->ranks().size();
  state.context_ranks = job.recipe.ranks_of_a_row(state.ranks);
  state.device = c10::DeviceTypeName(job.store->device().type(), /*lower_case=*/true);
  state.kernels = job.kernels == Kernels::kFast ? "fast" : "reference";
  state.compute = word_of(kComputeTypes, std::optional(job.store->compute_type()));
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
  TrainRecipe before, now;
  const json::object old_objective = read_record(was.recipe, before, from);
  const json::object objective = read_record(is.recipe, now, from);
  for (const Difference& d : differences(before, now)) {
    if (d.effect == Effect::kBatches) refuse(d.key, d.before, d.now);
    if (d.effect == Effect::kResult) note(d.key, d.before, d.now);
  }
  for (const auto& [key, value] : objective) {
    const json::value* old = old_objective.if_contains(key);
    note(key, old ? json::serialize(*old) : "none", json::serialize(value));
  }
  note("threads", was.threads, is.threads);
  note("ranks", was.ranks, is.ranks);
  note("context_ranks", was.context_ranks, is.context_ranks);
  note("device", was.device, is.device);
  note("kernels", was.kernels, is.kernels);
  if (!was.compute.empty()) note("compute", was.compute, is.compute);
  return warnings;
}

}  // namespace halo
