// Which layers keep attention (hypenet.md 2.3).
#pragma once

#include "halo/stages/context.h"
#include "halo/stages/selection_rule.h"
#include "halo/stages/transfer.h"

namespace halo {

// Section `select` of a recipe.
struct SelectRecipe {
  SelectionRule rule = SelectionRule::kJoint;
  std::vector<int64_t> layers;
  int64_t keep = 0;
  int64_t kv_bytes = 0;
  std::vector<std::string> recall, commonsense;
  std::string data;
  int64_t items = 200;
  int64_t needle_haystacks = 8;
  int64_t needle_questions = 5;
  int64_t needle_length = 0;
  int64_t held_out_rows = 8;
  int64_t max_sets = 128;
  int64_t gate_tokens = 2'000'000;
  int64_t bootstrap = 1000;

  void settings(Settings& s) {
    s("rule", rule, kSelectionRules, {.help = "how the layers that keep attention are chosen"});
    s("layers", layers,
      {.help = "layers to keep as given, ascending, in place of a rule", .max = 10'000});
    s("keep", keep, {.help = "attention layers kept; 0: a quarter, at least 1", .max = 10'000});
    s("kv_bytes", kv_bytes,
      {.help = "in place of keep: bytes of keys and values a token at most, of two each; 0: no "
               "such bound",
       .max = kMaxCount});
    s("recall", recall,
      {.help =
           "rule halo: tasks of `halo eval` whose mean is R; empty: needles and held-out text"});
    s("commonsense", commonsense, {.help = "rule halo: tasks whose mean is C"});
    s("data", data, {.help = "folder of the tasks' files"});
    s("items", items, {.help = "items of each task; 0: all", .max = kMaxCount});
    s("needle_haystacks", needle_haystacks,
      {.help = "haystacks each candidate is scored on", .min = 1, .max = 100'000});
    s("needle_questions", needle_questions,
      {.help = "questions a haystack", .min = 1, .max = 100'000});
    s("needle_length", needle_length,
      {.help = "tokens a haystack; 0: align.sequence_length", .max = 16'777'216});
    s("held_out_rows", held_out_rows,
      {.help = "rows of held-out text each candidate is scored on", .min = 1, .max = 1e6});
    s("max_sets", max_sets,
      {.help = "joint tries all sets up to this many, else it searches greedily",
       .min = 1,
       .max = 1e6});
    s("gate_tokens", gate_tokens,
      {.help = "rule gate: tokens of needle documents that the gates are trained on",
       .min = 1,
       .max = 1e12});
    s("bootstrap", bootstrap,
      {.help = "resamples behind the reported uncertainty", .min = 1, .max = 1e6});
  }
};

// An Error that names `file` where no model could be given these layers.
void check_recipe(const SelectRecipe& recipe, const std::string& file);

// The held-out text that candidates are scored on.
HeldOutArgs select_text(const SelectRecipe& recipe, const StageInputs& inputs);

// Tokens of the haystacks that candidates are scored on.
int64_t needle_length(const SelectRecipe& recipe, const StageInputs& inputs);

// The file of a sweep over tasks in the stage's folder, which `halo select --scores` reads.
inline constexpr const char* kLayerSweep = "layer-sweep.csv";

// From align's model and that of align-attention, without which kept layers start as the teacher's,
// by `init`. OUT/step-0: the hybrid; OUT/selection.json: scores and their uncertainty; of a rule
// that asks tasks also OUT/layer-sweep.csv, of rule `gate` OUT/gates (learned_gates.h). Called by
// all ranks.
void run_select(const SelectRecipe& recipe, TransferInit init, const StageContext& context,
                const StageArgs& args);

}  // namespace halo
