// What a recipe says about any training stage. Each stage brings its own defaults.
#pragma once

#include <cstdint>
#include <string>

#include "halo/base/settings.h"
#include "halo/train/schedule.h"

namespace halo {

enum class ClipMode { kGlobal, kPerLayer };
inline constexpr Word<ClipMode> kClipModes[] = {{"global", ClipMode::kGlobal},
                                                {"per-layer", ClipMode::kPerLayer}};

// What ranks divide of a step.
enum class Split {
  kRows,    // its rows: each trains everything on its own of them, or on its group's
  kLayers,  // the layers: each trains its own on all rows
};
inline constexpr Word<Split> kSplits[] = {{"rows", Split::kRows}, {"layers", Split::kLayers}};

struct TrainRecipe {
  int64_t tokens = 500'000;
  int64_t sequence_length = 512;
  int64_t tokens_per_step = 16'384;
  int64_t micro_batch_rows = 8;
  int64_t context_ranks = 1;   // that share a row; a setting of stage 3 alone (FinetuneRecipe)
  Split split = Split::kRows;  // a setting of stage 1 alone (AlignRecipe)
  double learning_rate = 1e-3;
  double min_learning_rate = 1e-5;
  int64_t warmup_steps = 50;
  RateCurve schedule = RateCurve::kWarmupCosine;
  double beta1 = 0.9, beta2 = 0.95, eps = 1e-8;
  double weight_decay = 0;
  double clip = 1;
  ClipMode clip_mode = ClipMode::kGlobal;
  int64_t checkpoint_every = 0;
  int64_t keep_checkpoints = 2;
  double diverged_factor = 30;

  void settings(Settings& s) {
    s("tokens", tokens, {.help = "training tokens, all steps together", .max = kMaxCount});
    s("sequence_length", sequence_length,
      {.help = "tokens a packed sequence",
       .min = 2,
       .max = 16'777'216,
       .effect = Effect::kBatches});
    s("tokens_per_step", tokens_per_step,
      {.help = "tokens an update", .min = 1, .max = 1e12, .effect = Effect::kBatches});
    s("micro_batch_rows", micro_batch_rows,
      {.help = "sequences at a time (memory only)", .min = 1, .max = 1e6});
    s("learning_rate", learning_rate, {.help = "peak rate", .min = 1e-30, .max = 1e30});
    s("min_learning_rate", min_learning_rate,
      {.help = "rate at the end of the cosine", .max = 1e3});
    s("warmup_steps", warmup_steps, {.help = "updates of linear warm-up", .max = kMaxCount});
    s("schedule", schedule, kRateCurves, {.help = "the rate after warm-up; late: one update late"});
    s("beta1", beta1, {.help = "AdamW's first decay", .max = 0.999999});
    s("beta2", beta2, {.help = "AdamW's second decay", .max = 0.999999});
    s("eps", eps, {.help = "AdamW's epsilon", .min = 1e-30, .max = 1});
    s("weight_decay", weight_decay, {.help = "decoupled decay of matrices", .max = 100});
    s("clip", clip, {.help = "largest gradient norm", .min = 1e-12, .max = 1e12});
    s("clip_mode", clip_mode, kClipModes, {.help = "one norm for all, or one a layer"});
    s("checkpoint_every", checkpoint_every,
      {.help = "steps between checkpoints; 0: only at the end",
       .max = kMaxCount,
       .effect = Effect::kNone});
    s("keep_checkpoints", keep_checkpoints,
      {.help = "the newest ones that stay",
       .min = 2,
       .max = 1e6,
       .effect = Effect::kNone,
       .was = "keep"});
    s("diverged_factor", diverged_factor,
      {.help = "stop when the gradient norm is this many times its median so far, or "
               "the loss 8 times what it began at; 0: never",
       .max = 1e12,
       .effect = Effect::kNone});
  }

  int64_t steps() const { return (tokens + tokens_per_step - 1) / tokens_per_step; }
  int64_t rows_per_step() const { return tokens_per_step / sequence_length; }
  // Of so many ranks those that have the same rows.
  int64_t ranks_of_a_row(int64_t ranks) const {
    return split == Split::kLayers ? ranks : context_ranks;
  }
  // Those of a step that each of so many ranks has.
  int64_t rows_per_rank(int64_t ranks) const {
    return rows_per_step() * ranks_of_a_row(ranks) / ranks;
  }
};

// Every value that cannot work, on that many ranks, is an Error that names `where` ("align") and
// the key.
void check_recipe(const TrainRecipe& recipe, const std::string& where, int64_t ranks = 1);
Schedule make_schedule(const TrainRecipe& recipe);

}  // namespace halo
