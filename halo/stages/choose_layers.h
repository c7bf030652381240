// The selection rules applied to scored candidates, with the bootstrap that says how sure the
// choice is.
#pragma once

#include <optional>

#include "halo/stages/candidates.h"
#include "halo/stages/task_sweep.h"

namespace halo {

struct LayerChoice {
  Layers layers;
  std::vector<double> scores;     // one a layer; empty for rules without any
  std::vector<double> frequency;  // share of resamples in which each layer is kept; so too
  json::array candidates;         // candidate_to_json of all that were scored
  std::optional<TaskSweep> sweep = {};
};

// The number of select.layers, or select.keep, or what select.kv_bytes has room for, or a quarter
// of the layers; an Error where the model has not those layers or not so many, or there is room for
// none.
int64_t num_layers_to_keep(const SelectRecipe& recipe, const ModelConfig& teacher);

// An Error that names the task, where select.rule chooses by one that the teacher does no better
// than by guessing (hypenet.md 2.3). Gives the teacher's scores; none where no rule looks at tasks.
std::optional<CandidateScores> check_teacher(const SelectRecipe& recipe,
                                             const Candidates& candidates,
                                             const StageContext& context);

// select.layers, or `keep` layers by the recipe's select.rule. `args`: of stage select; a rule that
// trains does so in its folder. Called by all ranks, each of which gets the choice.
LayerChoice choose_layers(const SelectRecipe& recipe, const Candidates& candidates,
                          const StageContext& context, int64_t keep, const StageArgs& args);

}  // namespace halo
