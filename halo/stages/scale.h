// The search of the logit scale (hypenet.md 2.4).
#pragma once

#include "halo/stages/context.h"

namespace halo {

// Section `scale` of a recipe.
struct ScaleRecipe {
  std::vector<double> candidates = {100, 300, 500, 1000, 3000};
  std::vector<int64_t> lengths;
  int64_t training_length = 0;
  int64_t haystacks = 6;
  int64_t questions = 5;
  int64_t documents = 4;
  int64_t refine = 1;
  std::vector<std::string> tasks;
  std::string data;
  int64_t items = 20;

  void settings(Settings& s) {
    s("candidates", candidates,
      {.help = "values of a in ln(t + a) / ln(a) that are tried", .min = 2, .max = 1e9});
    s("lengths", lengths,
      {.help = "needle lengths, the longest beyond the training length; empty: 4 and 8 times that",
       .min = 1,
       .max = 16'777'216});
    s("training_length", training_length,
      {.help = "tokens of the longest text that the model was trained on; 0: what the teacher's "
               "config.json and the stages say, of a model alone what its own config.json says",
       .max = 16'777'216});
    s("haystacks", haystacks, {.help = "haystacks a length", .min = 1, .max = 100'000});
    s("questions", questions, {.help = "questions a haystack", .min = 1, .max = 100'000});
    s("documents", documents,
      {.help = "long held-out documents whose loss decides among equals", .min = 1, .max = 1e6});
    s("refine", refine,
      {.help = "how often the geometric means of the best a and its neighbours are tried too",
       .max = 16});
    s("tasks", tasks,
      {.help = "tasks of `halo eval` that are made to a length, asked beside the needles"});
    s("data", data, {.help = "folder of the files that these tasks are made from"});
    s("items", items, {.help = "items of such a task and length", .min = 1, .max = 100'000});
  }
};

// An Error that names `file` where there is nothing to search.
void check_recipe(const ScaleRecipe& recipe, const std::string& file);

// Tokens of the longest text that the model was trained on.
int64_t training_length(const ScaleRecipe& recipe, const StageInputs& inputs);

// The text whose loss decides among equals, for the search's needle lengths (scale_rule.h).
HeldOutArgs scale_text(const ScaleRecipe& recipe, const std::vector<int64_t>& lengths,
                       int64_t training_length);

// Finds the logit scale of a student and writes it, with the weights as they are, to OUT/step-0.
void run_scale(const ScaleRecipe& recipe, const StageContext& context, const StageArgs& args);

}  // namespace halo
