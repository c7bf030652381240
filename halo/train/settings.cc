// Checks of a training recipe.
#include "halo/train/settings.h"

#include "halo/base/fields.h"

namespace halo {

namespace {

void require(bool good, const std::string& where, const char* key, const std::string& rule) {
  if (!good) throw_error("{}.{}: {}", where, key, rule);
}

}  // namespace

ClipMode parse_clip_mode(const std::string& name) {
  if (name == "global") return ClipMode::kGlobal;
  if (name == "per-layer") return ClipMode::kPerLayer;
  throw_error("clip_mode: unknown value '{}'; did you mean '{}'?", name,
              nearest(name, {"global", "per-layer"}));
}

Schedule make_schedule(const TrainRecipe& recipe) {
  return {parse_schedule(recipe.schedule), recipe.learning_rate, recipe.min_learning_rate,
          recipe.warmup_steps, recipe.steps()};
}

void check_recipe(const TrainRecipe& r, const std::string& where) {
  require(r.tokens > 0, where, "tokens", "must be positive");
  require(r.sequence_length > 0, where, "sequence_length", "must be positive");
  require(r.tokens_per_step >= r.sequence_length && r.tokens_per_step % r.sequence_length == 0,
          where, "tokens_per_step",
          fmt::format("{} is not a multiple of sequence_length ({})", r.tokens_per_step,
                      r.sequence_length));
  require(r.micro_batch_rows > 0, where, "micro_batch_rows", "must be positive");
  require(r.learning_rate > 0, where, "learning_rate", "must be positive");
  require(r.min_learning_rate >= 0 && r.min_learning_rate <= r.learning_rate, where,
          "min_learning_rate", "must lie between 0 and learning_rate");
  require(r.warmup_steps >= 0 && r.warmup_steps < r.steps(), where, "warmup_steps",
          fmt::format("{} must be fewer than the run's {} steps (tokens / tokens_per_step)",
                      r.warmup_steps, r.steps()));
  require(r.beta1 >= 0 && r.beta1 < 1, where, "beta1", "must lie in [0, 1)");
  require(r.beta2 >= 0 && r.beta2 < 1, where, "beta2", "must lie in [0, 1)");
  require(r.eps > 0, where, "eps", "must be positive");
  require(r.weight_decay >= 0, where, "weight_decay", "must not be negative");
  require(r.clip > 0, where, "clip", "must be positive");
  require(r.checkpoint_every >= 0, where, "checkpoint_every", "must not be negative");
  require(r.keep >= 2, where, "keep", "must be at least 2, so that a damaged one costs no run");
  require(r.diverged_factor == 0 || r.diverged_factor > 1, where, "diverged_factor",
          "must be 0 (never stop) or more than 1");
  parse_schedule(r.schedule);
  parse_clip_mode(r.clip_mode);
}

}  // namespace halo
