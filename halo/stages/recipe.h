// What a conversion is told to do: one struct a section of RECIPE.toml (docs/formats/recipe.md is
// `halo plan --keys`, made from these declarations).
#pragma once

#include <string>
#include <vector>

#include "halo/data/loader.h"
#include "halo/runtime/run_recipe.h"
#include "halo/train/settings.h"

namespace halo {

struct TransferRecipe {
  std::string init = "match";
  int64_t calibration_tokens = 0;
  int64_t qk_norm_tokens = 65'536;

  template <class V>
  void fields(V& v) {
    v("init", init, "match | lsq | identity | paper: how gates and output norms start");
    v("calibration_tokens", calibration_tokens,
      "tokens that match and lsq are fitted to; 0: 4096 and 65536");
    v("qk_norm_tokens", qk_norm_tokens,
      "tokens over which q and k of a teacher without QK-norm are measured");
  }
};

struct SelectRecipe {
  std::string rule = "joint";
  std::vector<int64_t> layers;
  int64_t keep = 0;
  int64_t needle_haystacks = 8;
  int64_t needle_questions = 5;
  int64_t needle_length = 0;
  int64_t held_out_rows = 8;
  int64_t max_sets = 128;
  int64_t bootstrap = 1000;

  template <class V>
  void fields(V& v) {
    v("rule", rule, "joint | halo | kl | recall | even | random");
    v("layers", layers, "layers to keep as given, ascending, in place of a rule");
    v("keep", keep, "attention layers kept; 0: a quarter, at least 1");
    v("needle_haystacks", needle_haystacks, "haystacks each candidate is scored on");
    v("needle_questions", needle_questions, "questions a haystack");
    v("needle_length", needle_length, "tokens a haystack; 0: align.sequence_length");
    v("held_out_rows", held_out_rows, "rows of held-out text each candidate is scored on");
    v("max_sets", max_sets, "joint tries all sets up to this many, else it searches greedily");
    v("bootstrap", bootstrap, "resamples behind the reported uncertainty");
  }
};

struct DistillRecipe : TrainRecipe {
  double cross_entropy_share = 0;

  template <class V>
  void fields(V& v) {
    TrainRecipe::fields(v);
    v("cross_entropy_share", cross_entropy_share,
      "share of next-token cross-entropy in the loss, 0 to 1; the rest is KL");
  }
};

struct ScaleRecipe {
  std::vector<double> candidates = {100, 300, 500, 1000, 3000};
  std::vector<int64_t> lengths;
  int64_t haystacks = 6;
  int64_t questions = 5;
  int64_t documents = 4;

  template <class V>
  void fields(V& v) {
    v("candidates", candidates, "values of a in ln(t + a) / ln(a) that are tried");
    v("lengths", lengths,
      "needle lengths, the longest beyond the training length; empty: 4 and 8 times that");
    v("haystacks", haystacks, "haystacks a length");
    v("questions", questions, "questions a haystack");
    v("documents", documents, "long held-out documents whose loss decides among equals");
  }
};

struct EvalRecipe {
  std::string held_out;
  std::vector<int64_t> lengths;
  int64_t held_out_tokens = 65'536;
  int64_t haystacks = 8;
  int64_t questions = 5;
  int64_t position_documents = 8;

  template <class V>
  void fields(V& v) {
    v("held_out", held_out,
      "token shard of text no stage trains on; its first half is searched with, its second "
      "reported");
    v("lengths", lengths,
      "needle lengths of the report; empty: 1, 2, 4 and 8 times the training length");
    v("held_out_tokens", held_out_tokens, "tokens of the loss and KL figures");
    v("haystacks", haystacks, "haystacks a length");
    v("questions", questions, "questions a haystack");
    v("position_documents", position_documents, "long documents behind the loss by position");
  }
};

struct GateRecipe {
  double align_explained_variance = 0.3;
  double select_ratio = 0.9;
  double distill_kl = 0.27;
  double finetune_loss_decrease = 0;
  double scale_needle = 0.9;

  template <class V>
  void fields(V& v) {
    v("align_explained_variance", align_explained_variance,
      "least median over layers of 1 - MSE / variance, held out");
    v("select_ratio", select_ratio,
      "most loss of the chosen set on needles' digits, or KL, as a share of that with nothing "
      "kept; the smaller share counts, but KL's where it is above 1.5");
    v("distill_kl", distill_kl, "most KL from the teacher, nats a token, held out");
    v("finetune_loss_decrease", finetune_loss_decrease,
      "held-out loss must fall by more than this, nats a token");
    v("scale_needle", scale_needle, "least needle accuracy at the longest searched length");
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

  template <class V>
  void fields(V& v) {
    v("teacher", teacher, "Hugging Face directory of the Transformer to convert");
    v("run", run, "machine and numbers");
    v("data", data, "training text");
    v("transfer", transfer, "stage 0: copy weights");
    v("align", align, "stage 1: lightning mixers learn the teacher's mixer outputs");
    v("align_attention", align_attention, "stage 1b: the same for NoPE attention; tokens = 0: off");
    v("select", select, "which layers keep attention");
    v("distill", distill, "stage 2: KL from the teacher");
    v("finetune", finetune, "stage 3: cross-entropy on long sequences; tokens = 0: off");
    v("scale", scale, "search of the logit scale");
    v("eval", eval, "the figures of the report");
    v("gates", gates, "what each stage must reach");
  }
};

struct TokenizerRecipe {
  int64_t vocab_size = 2048;
  int64_t training_bytes = 50'000'000;

  template <class V>
  void fields(V& v) {
    v("vocab_size", vocab_size, "tokens, bytes and special tokens included");
    v("training_bytes", training_bytes, "text that merges are counted on, from the first input on");
  }
};

struct ArchitectureRecipe {
  int64_t num_layers = 8, hidden_size = 192, intermediate_size = 512;
  int64_t num_heads = 4, num_kv_heads = 2, head_dim = 64;
  double rope_theta = 10'000;

  template <class V>
  void fields(V& v) {
    v("num_layers", num_layers, "layers");
    v("hidden_size", hidden_size, "width");
    v("intermediate_size", intermediate_size, "width of the MLP");
    v("num_heads", num_heads, "query heads");
    v("num_kv_heads", num_kv_heads, "key/value heads");
    v("head_dim", head_dim, "size of a head");
    v("rope_theta", rope_theta, "base of the rotary frequencies");
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

  template <class V>
  void fields(V& v) {
    v("text", text, "text files to train the tokenizer on and to pack; empty: data.shards is used");
    v("lengths", lengths, "sequence lengths of the curriculum; each divides train.sequence_length");
    v("shares", shares, "share of the steps at each length");
    v("run", run, "machine and numbers");
    v("tokenizer", tokenizer, "byte-level BPE");
    v("model", model, "Qwen3 architecture, tied head");
    v("data", data, "mixture and needles");
    v("train", train, "the loop");
  }
};

// Reads TOML, applies `--set` assignments, checks every value that can be checked without data.
Recipe read_recipe(const std::filesystem::path& path, const std::vector<std::string>& set);
PretrainRecipe read_pretrain_recipe(const std::filesystem::path& path,
                                    const std::vector<std::string>& set);

}  // namespace halo
