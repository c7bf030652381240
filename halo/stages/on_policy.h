// Stage 4, on-policy distillation (hypenet.md 2.2): the student writes, and learns what its teacher
// would have said at each place of what it wrote.
#pragma once

#include <cstdint>
#include <vector>

#include "halo/data/prompts.h"
#include "halo/stages/context.h"
#include "halo/stages/losses.h"

namespace halo {

struct OnPolicyRecipe : TrainRecipe {
  int64_t prompt_tokens = 32;
  Divergence divergence = Divergence::kReverse;
  bool freeze_attention = false;

  OnPolicyRecipe();  // off

  void settings(Settings& s) {
    TrainRecipe::settings(s);
    s("prompt_tokens", prompt_tokens,
      {.help =
           "tokens of a text's beginning that the student goes on with; of a conversation (data "
           "synthesize --chat) all that is asked",
       .min = 1,
       .max = 16'777'216,
       .effect = Effect::kBatches});
    s("divergence", divergence, kDivergences,
      {.help = "reverse: nothing is to be said that the teacher would not; forward: all is that it "
               "would"});
    s("freeze_attention", freeze_attention, {.help = "kept attention layers stay as they are"});
  }
};

// An Error that names the key where its own settings cannot work.
void check_recipe(const OnPolicyRecipe& recipe);

// What the training batches are made of.
Prompts training_prompts(const OnPolicyRecipe& recipe, const StageInputs& inputs);
// Of the search half of the held-out text; an Error where it has none.
std::vector<std::vector<int64_t>> held_out_prompts(const OnPolicyRecipe& recipe,
                                                   const StageInputs& inputs);

struct WritingPlan {
  int64_t length = 0;         // tokens of a text at most, its prompt's included
  std::vector<int64_t> ends;  // tokens that end a text, behind itself
  int64_t seed = 0;           // of the sampling, at temperature 1
  int64_t stream = 0;         // of the first row; the others count from there
};

// Texts written at a time, at most; there is memory for a few more (kMostDrafting).
inline constexpr int64_t kTextsAtATime = 64;

// Puts what `student`, whose weights are whole and ask for no gradient, writes behind each piece of
// `batches`, its prompt, in the prompt's place. A token counts (weight 1) where the student chose
// the next one, and has it as its target. On a GPU tokens that do not count fill up the last row,
// so that batches have few sizes.
void write_on(const DecoderWeights& student, const Machine& machine, const WritingPlan& plan,
              std::vector<TrainBatch>& batches);

// From a hybrid.
void run_on_policy(const OnPolicyRecipe& recipe, const StageContext& context,
                   const StageArgs& args);

}  // namespace halo
