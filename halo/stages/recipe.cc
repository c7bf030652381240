#include "halo/stages/recipe.h"

#include <algorithm>
#include <cmath>
#include <functional>

#include "halo/base/check.h"
#include "halo/base/files.h"
#include "halo/base/settings_io.h"

namespace halo {
namespace {

TrainRecipe stage(int64_t tokens, int64_t length, int64_t step, double rate, double last_rate) {
  TrainRecipe r;
  r.tokens = tokens;
  r.sequence_length = length;
  r.tokens_per_step = step;
  r.learning_rate = rate;
  r.min_learning_rate = last_rate;
  return r;
}

template <class T>
T read(const std::filesystem::path& path, const std::vector<std::string>& set) {
  T recipe;
  read_toml(recipe, read_file(path), path.string());
  for (const std::string& assignment : set) set_setting(recipe, assignment);
  return recipe;
}

void require(bool good, const std::filesystem::path& recipe, const std::string& rule) {
  if (!good) throw_error("{}: {}", recipe.string(), rule);
}

void check_layers(const SelectRecipe& select, const std::string& file) {
  const std::vector<int64_t>& layers = select.layers;
  if (layers.empty()) return;
  if (std::adjacent_find(layers.begin(), layers.end(), std::greater_equal<>()) != layers.end()) {
    throw_error("{}: select.layers must be different layers, counted from 0, in ascending order",
                file);
  }
  if (select.keep > 0 && select.keep != static_cast<int64_t>(layers.size())) {
    throw_error("{}: select.keep = {}, but select.layers lists {}", file, select.keep,
                layers.size());
  }
}

}  // namespace

// The published settings for Qwen3-1.7B (hypenet.md 2.2).
Recipe::Recipe()
    : align(stage(327'680'000, 512, 16'384, 1e-3, 1e-5)),
      align_attention(stage(0, 512, 16'384, 1e-3, 1e-5)),
      distill{stage(983'040'000, 512, 49'152, 1e-4, 1e-5)},
      finetune(stage(1'048'576'000, 16'384, 2'097'152, 1e-5, 1e-5)) {
  finetune.schedule = ScheduleForm::kConstant;
  finetune.micro_batch_rows = 1;
}

PretrainRecipe::PretrainRecipe() : train(stage(110'000'000, 1024, 32'768, 2e-3, 2e-5)) {
  train.weight_decay = 0.1;
  train.warmup_steps = 100;
  data.needle_share = 0.45;
  data.answer_weight = 0.5;
}

Recipe read_recipe(const std::filesystem::path& path, const std::vector<std::string>& set) {
  Recipe r = read<Recipe>(path, set);
  check_layers(r.select, path.string());
  check_recipe(r.align, "align");
  check_recipe(r.distill, "distill");
  if (r.align_attention.tokens > 0) check_recipe(r.align_attention, "align_attention");
  if (r.finetune.tokens > 0) check_recipe(r.finetune, "finetune");
  require(!r.scale.candidates.empty(), path, "scale.candidates must not be empty");
  for (double a : r.scale.candidates) {
    require(a == std::floor(a), path, fmt::format("scale.candidates: {} is not an integer", a));
  }
  return r;
}

PretrainRecipe read_pretrain_recipe(const std::filesystem::path& path,
                                    const std::vector<std::string>& set) {
  PretrainRecipe r = read<PretrainRecipe>(path, set);
  check_recipe(r.train, "train");
  if (r.lengths.size() != r.shares.size()) {
    throw_error("{}: lengths has {} entries, shares {}", path.string(), r.lengths.size(),
                r.shares.size());
  }
  for (int64_t length : r.lengths) {
    if (r.train.sequence_length % length != 0) {
      throw_error("{}: length {} does not divide train.sequence_length {}", path.string(), length,
                  r.train.sequence_length);
    }
  }
  return r;
}

}  // namespace halo
