// What a conversion is told to do: the sections of RECIPE.toml, each declared with its stage
// (docs/formats/recipe.md is `halo plan --keys`, made from these declarations).
#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "halo/base/files.h"
#include "halo/base/settings_io.h"
#include "halo/base/text.h"
#include "halo/data/loader.h"
#include "halo/pipeline/evaluate.h"
#include "halo/runtime/run_recipe.h"
#include "halo/stages/align.h"
#include "halo/stages/distill.h"
#include "halo/stages/on_policy.h"
#include "halo/stages/scale.h"
#include "halo/stages/select.h"

namespace halo {

struct GateRecipe {
  double align_explained_variance = 0.3;
  double select_ratio = 0.9;
  double distill_kl = 0.27;
  double finetune_loss_decrease = 0;
  double on_policy_kl_decrease = 0;
  double scale_needle = 0.9;

  void settings(Settings& s) {
    s("align_explained_variance", align_explained_variance,
      {.help = "least median over layers of 1 - MSE / variance, held out",
       .min = -1e9,
       .max = 1e9});
    s("select_ratio", select_ratio,
      {.help =
           "most loss of the chosen set on needles' digits, or KL, as a share of that with nothing "
           "kept; the smaller share counts, but KL's where it is above 1.5",
       .max = 1e9});
    s("distill_kl", distill_kl,
      {.help = "most KL from the teacher, nats a token, held out", .max = 1e9});
    s("finetune_loss_decrease", finetune_loss_decrease,
      {.help = "held-out loss must fall by more than this, nats a token", .min = -1e9, .max = 1e9});
    s("on_policy_kl_decrease", on_policy_kl_decrease,
      {.help = "divergence of what the student writes must fall by more than this, nats a token",
       .min = -1e9,
       .max = 1e9});
    s("scale_needle", scale_needle,
      {.help = "least needle accuracy at the longest searched length", .max = 2});
  }
};

struct Recipe {
  std::string teacher;
  RunRecipe run;
  DataRecipe data;
  TransferRecipe transfer;
  AlignRecipe align;
  AlignAttentionRecipe align_attention;
  SelectRecipe select;
  DistillRecipe distill;
  FinetuneRecipe finetune;
  OnPolicyRecipe on_policy;
  ScaleRecipe scale;
  EvalRecipe eval;
  GateRecipe gates;

  void settings(Settings& s) {
    s("teacher", teacher, {.help = "Hugging Face directory of the Transformer to convert"});
    s("run", run, {.help = "machine and numbers"});
    s("data", data, {.help = "training text"});
    s("transfer", transfer, {.help = "stage 0: copy weights"});
    s("align", align, {.help = "stage 1: lightning mixers learn the teacher's mixer outputs"});
    s("align_attention", align_attention,
      {.help = "stage 1b: the same for NoPE attention; tokens = 0: off"});
    s("select", select, {.help = "which layers keep attention"});
    s("distill", distill, {.help = "stage 2: KL from the teacher"});
    s("finetune", finetune, {.help = "stage 3: cross-entropy on long sequences; tokens = 0: off"});
    s("on_policy", on_policy,
      {.help = "stage 4: divergence from the teacher on what the student writes; tokens = 0: off"});
    s("scale", scale, {.help = "search of the logit scale"});
    s("eval", eval, {.help = "the figures of the report"});
    s("gates", gates, {.help = "what each stage must reach", .effect = Effect::kNone});
  }
};

// Whether a setting names files or folders, which lie where the program runs.
bool names_files(const std::string& key);
// With absolute paths. Relative ones count from `base` if they are there, else from where the
// program runs.
Recipe with_absolute_paths(Recipe recipe, const std::filesystem::path& base = {});

// The recipe that a run folder shows: config.resolved.toml, in which paths into the folder are
// relative to it, so that it can be moved.
inline constexpr const char* kResolvedRecipe = "config.resolved.toml";
void write_run_recipe(const std::filesystem::path& run, Recipe recipe);

// What the stages share.
ContextSettings context_settings(const Recipe& recipe);

// A recipe file with `--set` assignments over it.
template <HasSettings T>
T read_settings_file(const std::filesystem::path& path, const std::vector<std::string>& set) {
  T recipe;
  read_toml(recipe, read_text_file(path), path.string());
  for (const std::string& assignment : set) set_setting(recipe, assignment);
  return recipe;
}

// And checks every value that can be checked without data. Paths of a kResolvedRecipe count from
// its folder.
Recipe read_recipe(const std::filesystem::path& path, const std::vector<std::string>& set);

}  // namespace halo
