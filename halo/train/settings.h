// What a recipe says about any training stage. Each stage brings its own defaults.
#pragma once

#include <cstdint>
#include <string>

#include "halo/train/schedule.h"

namespace halo {

struct TrainRecipe {
  int64_t tokens = 500'000;
  int64_t sequence_length = 512;
  int64_t tokens_per_step = 16'384;
  int64_t micro_batch_rows = 8;
  double learning_rate = 1e-3;
  double min_learning_rate = 1e-5;
  int64_t warmup_steps = 50;
  std::string schedule = "halo";
  double beta1 = 0.9, beta2 = 0.95, eps = 1e-8;
  double weight_decay = 0;
  double clip = 1;
  std::string clip_mode = "global";
  int64_t checkpoint_every = 0;
  int64_t keep = 2;
  double diverged_factor = 30;

  template <class V>
  void fields(V& v) {
    v("tokens", tokens, "training tokens, all steps together");
    v("sequence_length", sequence_length, "tokens a packed sequence");
    v("tokens_per_step", tokens_per_step, "tokens an update");
    v("micro_batch_rows", micro_batch_rows, "sequences at a time (memory only)");
    v("learning_rate", learning_rate, "peak rate");
    v("min_learning_rate", min_learning_rate, "rate at the end of the cosine");
    v("warmup_steps", warmup_steps, "updates of linear warm-up");
    v("schedule", schedule, "halo | paper (one update late) | constant");
    v("beta1", beta1, "AdamW's first decay");
    v("beta2", beta2, "AdamW's second decay");
    v("eps", eps, "AdamW's epsilon");
    v("weight_decay", weight_decay, "decoupled decay of matrices");
    v("clip", clip, "largest gradient norm");
    v("clip_mode", clip_mode, "global | per-layer (one norm a layer)");
    v("checkpoint_every", checkpoint_every, "steps between checkpoints; 0: only at the end");
    v("keep", keep, "checkpoints kept, at least 2");
    v("diverged_factor", diverged_factor,
      "stop when the gradient norm is this many times its median so far; 0: never");
  }

  int64_t steps() const { return (tokens + tokens_per_step - 1) / tokens_per_step; }
  int64_t rows_per_step() const { return tokens_per_step / sequence_length; }
};

enum class ClipMode { kGlobal, kPerLayer };
ClipMode parse_clip_mode(const std::string& name);

// Every value that cannot work is an Error that names `where` ("align") and the key.
void check_recipe(const TrainRecipe& recipe, const std::string& where);
Schedule make_schedule(const TrainRecipe& recipe);

}  // namespace halo
