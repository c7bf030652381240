// What the stages that train a whole student share.
#pragma once

#include "halo/stages/context.h"

namespace halo {

// Figures of a student on the search half of the held-out text, the KL from its teacher among them.
// By the ranks that have both.
TextScores held_out_scores(const StageContext& context, const DecoderWeights& teacher,
                           const DecoderWeights& student, int64_t row_length);

// What every one of them puts into result.json.
json::object training_figures(const TrainRecipe& train, const TrainResult& result);

// The same student, whose attention layers ask for no gradient: with AdamW from moments of 0 they
// stay as they are (check_frozen).
DecoderWeights with_frozen_attention(DecoderWeights student);
// An Error where `freeze_attention` of this section could not keep its word.
void check_frozen(const std::string& section, bool freeze_attention, const TrainRecipe& train);

}  // namespace halo
