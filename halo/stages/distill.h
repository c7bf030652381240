// Stage 2, KL from the teacher, and stage 3, cross-entropy on long sequences (hypenet.md 2.2). Both
// train the whole student.
#pragma once

#include "halo/model/fp8_matrices.h"
#include "halo/stages/context.h"

namespace halo {

struct DistillRecipe : TrainRecipe {
  double cross_entropy_share = 0;
  TeacherProducts teacher_products = TeacherProducts::kComputed;

  DistillRecipe();  // as published

  void settings(Settings& s) {
    TrainRecipe::settings(s);
    s("cross_entropy_share", cross_entropy_share,
      {.help = "share of next-token cross-entropy in the loss, 0 to 1; the rest is KL", .max = 1});
    s("teacher_products", teacher_products, kTeacherProducts,
      {.help = "type of the teacher's products: run.compute, or fp8 with a scale a row, faster and "
               "less exact (a GPU since Hopper)"});
  }
};

struct FinetuneRecipe : TrainRecipe {
  bool freeze_attention = false;

  FinetuneRecipe();  // as published

  void settings(Settings& s) {
    TrainRecipe::settings(s);
    s("context_ranks", context_ranks,
      {.help = "ranks that share a row, each an equal part of its tokens: longer rows, or fewer at "
               "a time",
       .min = 1,
       .max = 1024,
       .effect = Effect::kNone});
    s("freeze_attention", freeze_attention, {.help = "kept attention layers stay as they are"});
  }
};

// An Error where so many ranks cannot share this student's heads.
void check_context_ranks(int64_t context_ranks, const ModelConfig& student);

// From a hybrid.
void run_distill(const DistillRecipe& recipe, const StageContext& context, const StageArgs& args);
void run_finetune(const FinetuneRecipe& recipe, const StageContext& context, const StageArgs& args);

// Shares of stage 3's tokens with more than 1/4, 1/2 and 3/4 of its sequence length in view; an
// Error where too few see far for training on them to teach anything about length.
std::vector<double> finetune_view(const FinetuneRecipe& recipe, const StageInputs& inputs);

}  // namespace halo
