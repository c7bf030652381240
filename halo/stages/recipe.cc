#include "halo/stages/recipe.h"

#include <algorithm>
#include <cmath>
#include <functional>

#include "halo/base/check.h"
#include "halo/base/fields.h"
#include "halo/base/files.h"
#include "halo/base/text.h"
#include "halo/stages/selection_rule.h"
#include "halo/stages/transfer.h"

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
  read_fields(recipe, parse_toml(read_text_file(path), path.string()), path.string());
  for (const std::string& assignment : set) set_field(recipe, assignment);
  return recipe;
}

void require(bool good, const std::filesystem::path& recipe, const std::string& rule) {
  if (!good) throw_error("{}: {}", recipe.string(), rule);
}

bool all_positive(const std::vector<int64_t>& values) {
  return std::ranges::all_of(values, [](int64_t v) { return v > 0; });
}

void check_layers(const SelectRecipe& select, const std::string& file) {
  const std::vector<int64_t>& layers = select.layers;
  if (layers.empty()) return;
  if (layers.front() < 0 ||
      std::adjacent_find(layers.begin(), layers.end(), std::greater_equal<>()) != layers.end()) {
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
  finetune.schedule = "constant";
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
  parse_transfer_init(r.transfer.init);
  parse_selection_rule(r.select.rule);
  check_layers(r.select, path.string());
  check_recipe(r.align, "align");
  check_recipe(r.distill, "distill");
  if (r.align_attention.tokens > 0) check_recipe(r.align_attention, "align_attention");
  if (r.finetune.tokens > 0) check_recipe(r.finetune, "finetune");
  for (const auto& [key, value] :
       {std::pair{"select.max_sets", r.select.max_sets},
        std::pair{"eval.held_out_tokens", r.eval.held_out_tokens},
        std::pair{"select.needle_haystacks", r.select.needle_haystacks},
        std::pair{"select.needle_questions", r.select.needle_questions},
        std::pair{"select.held_out_rows", r.select.held_out_rows},
        std::pair{"select.bootstrap", r.select.bootstrap},
        std::pair{"scale.haystacks", r.scale.haystacks},
        std::pair{"scale.questions", r.scale.questions},
        std::pair{"scale.documents", r.scale.documents},
        std::pair{"eval.haystacks", r.eval.haystacks},
        std::pair{"eval.questions", r.eval.questions},
        std::pair{"eval.position_documents", r.eval.position_documents}}) {
    require(value >= 1, path, fmt::format("{} = {} must be at least 1", key, value));
  }
  const double share = r.distill.cross_entropy_share;
  require(0 <= share && share <= 1, path,
          fmt::format("distill.cross_entropy_share = {} must be from 0 to 1", share));
  for (const auto& [key, value] :
       {std::pair{"transfer.calibration_tokens", r.transfer.calibration_tokens},
        std::pair{"select.keep", r.select.keep},
        std::pair{"select.needle_length", r.select.needle_length}}) {
    require(value >= 0, path, fmt::format("{} = {} must not be negative", key, value));
  }
  require(all_positive(r.scale.lengths), path, "scale.lengths must be positive");
  require(all_positive(r.eval.lengths), path, "eval.lengths must be positive");
  require(!r.scale.candidates.empty(), path, "scale.candidates must not be empty");
  for (double a : r.scale.candidates) {
    require(a >= 2 && a == std::floor(a), path,
            fmt::format("scale.candidates: {} is not an integer above 1", a));
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
    if (length <= 0 || r.train.sequence_length % length != 0) {
      throw_error("{}: length {} does not divide train.sequence_length {}", path.string(), length,
                  r.train.sequence_length);
    }
  }
  return r;
}

}  // namespace halo
