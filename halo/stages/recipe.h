// What a conversion is told to do: one struct a section of RECIPE.toml (docs/formats/recipe.md is
// `halo plan --keys`, made from these declarations).
#pragma once

#include <ATen/core/Tensor.h>

#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "halo/base/settings.h"
#include "halo/data/loader.h"
#include "halo/runtime/run_recipe.h"
#include "halo/stages/selection_rule.h"
#include "halo/stages/transfer.h"
#include "halo/train/settings.h"

namespace halo {

struct TransferRecipe {
  TransferInit init = TransferInit::kMatch;
  int64_t calibration_tokens = 0;
  int64_t qk_norm_tokens = 65'536;

  void settings(Settings& s) {
    s("init", init, kTransferInits, {.help = "how gates and output norms start"});
    s("calibration_tokens", calibration_tokens,
      {.help = "tokens that match and lsq are fitted to; 0: 4096 and 65536", .max = 1e9});
    s("qk_norm_tokens", qk_norm_tokens,
      {.help = "tokens over which q and k of a teacher without QK-norm are measured",
       .min = 1,
       .max = 1e9});
  }
};

struct SelectRecipe {
  SelectionRule rule = SelectionRule::kJoint;
  std::vector<int64_t> layers;
  int64_t keep = 0;
  int64_t needle_haystacks = 8;
  int64_t needle_questions = 5;
  int64_t needle_length = 0;
  int64_t held_out_rows = 8;
  int64_t max_sets = 128;
  int64_t bootstrap = 1000;

  void settings(Settings& s) {
    s("rule", rule, kSelectionRules, {.help = "how the layers that keep attention are chosen"});
    s("layers", layers,
      {.help = "layers to keep as given, ascending, in place of a rule", .max = 10'000});
    s("keep", keep, {.help = "attention layers kept; 0: a quarter, at least 1", .max = 10'000});
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
    s("bootstrap", bootstrap,
      {.help = "resamples behind the reported uncertainty", .min = 1, .max = 1e6});
  }
};

struct DistillRecipe : TrainRecipe {
  double cross_entropy_share = 0;

  void settings(Settings& s) {
    TrainRecipe::settings(s);
    s("cross_entropy_share", cross_entropy_share,
      {.help = "share of next-token cross-entropy in the loss, 0 to 1; the rest is KL", .max = 1});
  }
};

struct ScaleRecipe {
  std::vector<double> candidates = {100, 300, 500, 1000, 3000};
  std::vector<int64_t> lengths;
  int64_t haystacks = 6;
  int64_t questions = 5;
  int64_t documents = 4;

  void settings(Settings& s) {
    s("candidates", candidates,
      {.help = "values of a in ln(t + a) / ln(a) that are tried", .min = 2, .max = 1e9});
    s("lengths", lengths,
      {.help = "needle lengths, the longest beyond the training length; empty: 4 and 8 times that",
       .min = 1,
       .max = 16'777'216});
    s("haystacks", haystacks, {.help = "haystacks a length", .min = 1, .max = 100'000});
    s("questions", questions, {.help = "questions a haystack", .min = 1, .max = 100'000});
    s("documents", documents,
      {.help = "long held-out documents whose loss decides among equals", .min = 1, .max = 1e6});
  }
};

struct EvalRecipe {
  std::string held_out;
  std::vector<int64_t> lengths;
  int64_t held_out_tokens = 65'536;
  int64_t haystacks = 8;
  int64_t questions = 5;
  int64_t position_documents = 8;

  void settings(Settings& s) {
    s("held_out", held_out,
      {.help =
           "token shard of text no stage trains on; its first half is searched with, its second "
           "reported"});
    s("lengths", lengths,
      {.help = "needle lengths of the report; empty: 1, 2, 4 and 8 times the training length",
       .min = 1,
       .max = 16'777'216});
    s("held_out_tokens", held_out_tokens,
      {.help = "tokens of the loss and KL figures", .min = 1, .max = 1e12});
    s("haystacks", haystacks, {.help = "haystacks a length", .min = 1, .max = 100'000});
    s("questions", questions, {.help = "questions a haystack", .min = 1, .max = 100'000});
    s("position_documents", position_documents,
      {.help = "long documents behind the loss by position", .min = 1, .max = 1e6});
  }
};

struct GateRecipe {
  double align_explained_variance = 0.3;
  double select_ratio = 0.9;
  double distill_kl = 0.27;
  double finetune_loss_decrease = 0;
  double scale_needle = 0.9;

  void settings(Settings& s) {
    s("align_explained_variance", align_explained_variance,
      {.help = "least median over layers of 1 - MSE / variance, held out",
       .min = -1e6,
       .max = 1e6});
    s("select_ratio", select_ratio,
      {.help =
           "most loss of the chosen set on needles' digits, or KL, as a share of that with nothing "
           "kept; the smaller share counts, but KL's where it is above 1.5",
       .max = 1e6});
    s("distill_kl", distill_kl,
      {.help = "most KL from the teacher, nats a token, held out", .max = 1e6});
    s("finetune_loss_decrease", finetune_loss_decrease,
      {.help = "held-out loss must fall by more than this, nats a token", .min = -1e6, .max = 1e6});
    s("scale_needle", scale_needle,
      {.help = "least needle accuracy at the longest searched length", .max = 2});
  }
};

struct Recipe {
  std::string teacher;
  RunRecipe run;
  DataRecipe data;
  TransferRecipe transfer;
  TrainRecipe align;
  TrainRecipe align_attention;
  SelectRecipe select;
  DistillRecipe distill;
  TrainRecipe finetune;
  ScaleRecipe scale;
  EvalRecipe eval;
  GateRecipe gates;

  Recipe();  // each stage's own defaults (hypenet.md 2.2)

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
    s("scale", scale, {.help = "search of the logit scale"});
    s("eval", eval, {.help = "the figures of the report"});
    s("gates", gates, {.help = "what each stage must reach", .effect = Effect::kNone});
  }
};

struct TokenizerRecipe {
  int64_t vocab_size = 2048;
  int64_t training_bytes = 50'000'000;

  void settings(Settings& s) {
    s("vocab_size", vocab_size,
      {.help = "tokens, bytes and special tokens included", .min = 257, .max = 1e6});
    s("training_bytes", training_bytes,
      {.help = "text that merges are counted on, from the first input on",
       .min = 1,
       .max = kMaxCount});
  }
};

struct ArchitectureRecipe {
  int64_t num_layers = 8, hidden_size = 192, intermediate_size = 512;
  int64_t num_heads = 4, num_kv_heads = 2, head_dim = 64;
  double rope_theta = 10'000;

  void settings(Settings& s) {
    s("num_layers", num_layers, {.help = "layers", .min = 1, .max = 10'000});
    s("hidden_size", hidden_size, {.help = "width", .min = 1, .max = 1e6});
    s("intermediate_size", intermediate_size, {.help = "width of the MLP", .min = 1, .max = 1e6});
    s("num_heads", num_heads, {.help = "query heads", .min = 1, .max = 10'000});
    s("num_kv_heads", num_kv_heads, {.help = "key/value heads", .min = 1, .max = 10'000});
    s("head_dim", head_dim, {.help = "size of a head", .min = 1, .max = 10'000});
    s("rope_theta", rope_theta, {.help = "base of the rotary frequencies", .min = 1, .max = 1e12});
  }
};

struct PretrainRecipe {
  std::vector<std::string> text;
  std::vector<int64_t> lengths = {128, 256, 512, 1024};
  std::vector<double> shares = {0.15, 0.075, 0.075, 0.7};
  RunRecipe run;
  TokenizerRecipe tokenizer;
  ArchitectureRecipe model;
  DataRecipe data;
  TrainRecipe train;

  PretrainRecipe();

  void settings(Settings& s) {
    s("text", text,
      {.help = "text files to train the tokenizer on and to pack; empty: data.shards is used"});
    s("lengths", lengths,
      {.help = "sequence lengths of the curriculum; each divides train.sequence_length",
       .min = 1,
       .max = 16'777'216});
    s("shares", shares, {.help = "share of the steps at each length", .max = 1e6});
    s("run", run, {.help = "machine and numbers"});
    s("tokenizer", tokenizer, {.help = "byte-level BPE"});
    s("model", model, {.help = "Qwen3 architecture, tied head"});
    s("data", data, {.help = "mixture and needles"});
    s("train", train, {.help = "the loop"});
  }
};

// Reads TOML, applies `--set` assignments, checks every value that can be checked without data.
Recipe read_recipe(const std::filesystem::path& path, const std::vector<std::string>& set);
PretrainRecipe read_pretrain_recipe(const std::filesystem::path& path,
                                    const std::vector<std::string>& set);

}  // namespace halo
