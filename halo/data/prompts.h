// Beginnings of documents, for a model to go on with: what on-policy distillation trains on
// (hypenet.md 2.2). A prompt is a pure function of (recipe, seed, step, row), as a training batch
// is.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "halo/data/loader.h"
#include "halo/data/token_stream.h"

namespace halo {

struct PromptPlan {
  int64_t tokens = 0;  // of a text's beginning
  int64_t most = 0;    // of any prompt
};

// How many of a document's first tokens are a prompt, at least 1: of a conversation (data
// synthesize --chat) all that the answer is given to, if that is no more than plan.most; of any
// other text plan.tokens, but no more than half of it. `beginning` has plan.most + 1 tokens, or the
// whole document.
int64_t prompt_length(const DocumentBeginning& beginning, const PromptPlan& plan);

// Of documents begin .. end - 1 of a shard, `count` of them spread evenly, or all.
std::vector<std::vector<int64_t>> prompts_of(const TokenShard& shard, int64_t begin, int64_t end,
                                             int64_t count, const PromptPlan& plan);

struct Mixture;

class Prompts {
 public:
  // Of the texts that `recipe` mixes, without needle documents: a row is a document, each document
  // once an epoch. `seed` orders them.
  Prompts(const DataRecipe& recipe, const std::string& tokenizer_hash, const PromptPlan& plan,
          int64_t rows_per_step, uint64_t seed);

  // Rows first_row .. first_row + rows - 1 of the step, each a piece: tokens and offsets alone.
  // Safe to call from several threads.
  TrainBatch step(int64_t step, int64_t first_row, int64_t rows) const;

 private:
  Prompts(Mixture mixture, const PromptPlan& plan, int64_t rows_per_step);

  std::vector<std::unique_ptr<TokenStream>> parts_;
  RowSplit split_;
  PromptPlan plan_;
  int64_t rows_per_step_;
};

}  // namespace halo
