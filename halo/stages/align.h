// Stages 0, 1 and 1b (hypenet.md 2.1): transfer, and alignment of each layer's new mixer to the
// teacher's.
#pragma once

#include "halo/stages/context.h"
#include "halo/stages/transfer.h"

namespace halo {

// The published settings (hypenet.md 2.2).
struct AlignRecipe : TrainRecipe {
  AlignRecipe();

  void settings(Settings& s) {
    TrainRecipe::settings(s);
    s("split", split, kSplits,
      {.help =
           "what ranks divide: the rows of a step, or the layers, of which each then trains its "
           "own on all rows",
       .effect = Effect::kNone});
  }
};
struct AlignAttentionRecipe : AlignRecipe {
  AlignAttentionRecipe();  // off
};

// Stage 0. OUT/step-0: a HypeNet of lightning layers alone, made of the teacher's weights.
void run_transfer(const TransferRecipe& recipe, const StageContext& context, const StageArgs& args);

// Whether it trains the mixers it started, and how: on the first rank alone, all layers, on rows of
// so many tokens.
bool trains_calibration(const TransferRecipe& recipe);
TrainRecipe calibration_training(const TransferRecipe& recipe, int64_t row_length);

// Stage 1. From transfer's model; trains the lightning mixers of all layers.
void run_align(const AlignRecipe& recipe, const StageContext& context, const StageArgs& args);

// Stage 1b. NoPE attention with an output gate in every layer, aligned to the teacher's attention.
void run_align_attention(const AlignAttentionRecipe& recipe, const TransferRecipe& transfer,
                         const StageContext& context, const StageArgs& args);

// Held-out explained variance of each layer's mixer, 1 - MSE / variance of the teacher's output.
// `trained` has the mixers, on all ranks that call: all that it is divided among.
std::vector<double> explained_variance(const StageContext& context,
                                       const std::vector<Mixer>& student,
                                       const ParameterStore& trained);

}  // namespace halo
