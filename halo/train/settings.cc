// Checks of a training recipe.
#include "halo/train/settings.h"

#include <algorithm>

#include "halo/base/check.h"

namespace halo {

namespace {

void require(bool good, const std::string& where, const char* key, const std::string& rule) {
  if (!good) throw_error("{}.{}: {}", where, key, rule);
}

// "4 and 8 do": the counts next to `count` that divide `whole`, as multiples of `unit`.
std::string nearest_divisors(int64_t whole, int64_t count, int64_t unit = 1) {
  int64_t below = std::min(count, whole), above = count;
  while (whole % below != 0) --below;
  while (above <= whole && whole % above != 0) ++above;
  return above <= whole ? fmt::format("{} and {} do", unit * below, unit * above)
                        : fmt::format("{} does", unit * below);
}

void check_context_ranks(const TrainRecipe& r, const std::string& where, int64_t ranks) {
  const int64_t size = r.context_ranks;
  require(size <= ranks, where, "context_ranks",
          fmt::format("{0} ranks are to share a row, and the run has {1}; start a multiple of {0} "
                      "(`halo launch -n {0}`, `halo plan --gpus {0}`), or leave it at 1",
                      size, ranks));
  require(ranks % size == 0, where, "context_ranks",
          fmt::format("{} does not divide the {} ranks of the run; {}", size, ranks,
                      nearest_divisors(ranks, size)));
  require(r.sequence_length % size == 0, where, "context_ranks",
          fmt::format("{} does not divide the {} tokens of a row (sequence_length); {}", size,
                      r.sequence_length, nearest_divisors(r.sequence_length, size)));
}

// Each runs the teacher on its part of every micro-batch.
void check_layers(const TrainRecipe& r, const std::string& where, int64_t ranks) {
  require(r.micro_batch_rows % ranks == 0, where, "micro_batch_rows",
          fmt::format("the {} ranks, which divide the layers (split = \"layers\"), must divide the "
                      "{} rows too, to run the teacher on them; {} rows would do",
                      ranks, r.micro_batch_rows, (r.micro_batch_rows + ranks - 1) / ranks * ranks));
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
  check_context_ranks(r, where, ranks);
  const int64_t groups = ranks / r.context_ranks;  // those that divide layers divide rows as well
  const std::string who =
      r.context_ranks == 1
          ? fmt::format("{} ranks", ranks)
          : fmt::format("{} ranks are {} groups of {} that share rows (context_ranks), which",
                        ranks, groups, r.context_ranks);
  require(r.rows_per_step() % groups == 0, where, "tokens_per_step",
          fmt::format("{} do not divide its {} rows; {}", who, r.rows_per_step(),
                      nearest_divisors(r.rows_per_step(), groups, r.context_ranks)));
  if (r.split == Split::kLayers) check_layers(r, where, ranks);
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
