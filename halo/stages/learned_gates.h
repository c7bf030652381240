// Rule `gate` of stage select: which layers a model keeps whose every layer learns how much of its
// attention it needs (hypenet.md 2.3).
#pragma once

#include <vector>

#include "halo/stages/candidates.h"

namespace halo {

// What the gates are trained on: needle documents alone, whose answers weigh as much as all else.
DataRecipe gate_data(const StageInputs& inputs);
TrainRecipe gate_training(const SelectRecipe& recipe, const StageInputs& inputs);

// The gate of each layer, 0 to 1, after select.gate_tokens tokens: how much of its attention the
// layer keeps where all of them together may keep that of `keep` layers. Trained in OUT/gates, from
// keep / L in every layer; all weights stay as they are. Called by all ranks, which deal the rows
// of a step among themselves: the same bits whatever their number, on each of them.
std::vector<double> learn_gates(const SelectRecipe& recipe, const Candidates& candidates,
                                const StageContext& context, int64_t keep, const StageArgs& args);

}  // namespace halo
