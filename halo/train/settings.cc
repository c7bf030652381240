// Checks of a training recipe.
#include "halo/train/settings.h"

#include <algorithm>

#include "halo/base/check.h"

namespace halo {

namespace {

void require(bool good, const std::string& where, const char* key, const std::string& rule) {
  if (!good) throw_error("{}.{}: {}", where, key, rule);
}

// "4 and 8 do": the counts next to `ranks` that divide a step's rows.
std::string nearest_divisors(int64_t rows, int64_t ranks) {
  int64_t below = std::min(ranks, rows), above = ranks;
  while (rows % below != 0) --below;
  while (above <= rows && rows % above != 0) ++above;
  return above <= rows ? fmt::format("{} and {} do", below, above) : fmt::format("{} does", below);
}

}  // namespace

Schedule make_schedule(const TrainRecipe& recipe) {
  return {recipe.schedule, recipe.learning_rate, recipe.min_learning_rate, recipe.warmup_steps,
          recipe.steps()};
}

void check_recipe(const TrainRecipe& r, const std::string& where, int64_t ranks) {
  require(r.tokens > 0, where, "tokens", "must be positive");
  require(r.tokens_per_step >= r.sequence_length && r.tokens_per_step % r.sequence_length == 0,
          where, "tokens_per_step",
          fmt::format("{} is not a multiple of sequence_length ({})", r.tokens_per_step,
                      r.sequence_length));
  require(r.rows_per_step() % ranks == 0, where, "tokens_per_step",
          fmt::format("{} ranks do not divide its {} rows; {}", ranks, r.rows_per_step(),
                      nearest_divisors(r.rows_per_step(), ranks)));
  // A constant rate ends where it begins.
  const double least = TrainRecipe().min_learning_rate;
  require(r.schedule == RateCurve::kConstant || r.min_learning_rate <= r.learning_rate, where,
          "min_learning_rate",
          fmt::format("{}{} is above learning_rate ({})", r.min_learning_rate,
                      r.min_learning_rate == least ? ", the default," : "", r.learning_rate));
  require(r.warmup_steps < r.steps(), where, "warmup_steps",
          fmt::format("{} must be fewer than the run's {} steps (tokens / tokens_per_step)",
                      r.warmup_steps, r.steps()));
  require(r.diverged_factor == 0 || r.diverged_factor > 1, where, "diverged_factor",
          "must be 0 (never stop) or more than 1");
}

}  // namespace halo
