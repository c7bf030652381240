#include "halo/data/prompts.h"

#include <algorithm>
#include <utility>

#include "ATen/ATen.h"
#include "halo/base/check.h"
#include "halo/data/mixture.h"

namespace halo {
namespace {

std::vector<int64_t> prompt_of(DocumentBeginning beginning, const PromptPlan& plan) {
  beginning.tokens.resize(static_cast<size_t>(prompt_length(beginning, plan)));
  return std::move(beginning.tokens);
}

Mixture open_texts(const DataRecipe& recipe, const std::string& tokenizer_hash, uint64_t seed) {
  check_recipe(recipe);
  Mixture mixture = open_mixture(recipe, tokenizer_hash, seed);
  if (mixture.parts.empty()) {
    throw_error("data.shards is empty; prompts are beginnings of its documents");
  }
  return mixture;
}

}  // namespace

int64_t prompt_length(const DocumentBeginning& beginning, const PromptPlan& plan) {
  const auto first_answered = std::ranges::find_if(beginning.marks, [](uint8_t mark) {
    return static_cast<NeedleMark>(mark) != NeedleMark::kAsked;
  });
  const int64_t asked = first_answered - beginning.marks.begin();
  if (0 < asked && asked <= plan.most) return asked;
  return std::max<int64_t>(1, std::min({plan.tokens, plan.most, beginning.length / 2}));
}

std::vector<std::vector<int64_t>> prompts_of(const TokenShard& shard, int64_t begin, int64_t end,
                                             int64_t count, const PromptPlan& plan) {
  const int64_t there = end - begin, taken = std::min(count, there);
  std::vector<std::vector<int64_t>> out;
  for (int64_t i = 0; i < taken; ++i) {
    const int64_t document = begin + i * there / taken;
    if (shard.document_begin(document) == shard.document_end(document)) continue;
    out.push_back(prompt_of(document_beginning(shard, document, plan.most + 1), plan));
  }
  return out;
}

Prompts::Prompts(const DataRecipe& recipe, const std::string& tokenizer_hash,
                 const PromptPlan& plan, int64_t rows_per_step, uint64_t seed)
    : Prompts(open_texts(recipe, tokenizer_hash, seed), plan, rows_per_step) {}

Prompts::Prompts(Mixture mixture, const PromptPlan& plan, int64_t rows_per_step)
    : parts_(std::move(mixture.parts)),
      split_(mixture.weights),
      plan_(plan),
      rows_per_step_(rows_per_step) {
  HALO_CHECK(plan.tokens >= 1 && plan.most >= 1 && rows_per_step >= 1,
             "prompts: {} rows of {} and at most {} tokens", rows_per_step, plan.tokens, plan.most);
}

TrainBatch Prompts::step(int64_t step, int64_t first_row, int64_t rows) const {
  HALO_CHECK(step >= 0 && first_row >= 0 && first_row + rows <= rows_per_step_,
             "prompts: step {}, rows {} to {} of {}", step, first_row, first_row + rows,
             rows_per_step_);
  TrainBatch batch;
  batch.rows = rows;
  batch.offsets = {0};
  std::vector<int64_t> tokens;
  for (int64_t i = 0; i < rows; ++i) {
    const RowSplit::Place place = split_.place(step * rows_per_step_ + first_row + i);
    const std::vector<int64_t> prompt =
        prompt_of(parts_[place.part]->beginning(place.row, plan_.most + 1), plan_);
    tokens.insert(tokens.end(), prompt.begin(), prompt.end());
    batch.offsets.push_back(std::ssize(tokens));
  }
  batch.tokens = at::tensor(tokens, at::kLong);
  return batch;
}

}  // namespace halo
