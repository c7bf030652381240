// Trains a tokenizer and a Qwen3-like Transformer from nothing: the small teachers of the demo and
// of the tests.
#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "halo/base/settings.h"
#include "halo/data/loader.h"
#include "halo/runtime/communicator.h"
#include "halo/runtime/run_recipe.h"
#include "halo/train/settings.h"

namespace halo {

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
       .min = 2,
       .max = 16'777'216});
    s("shares", shares, {.help = "share of the steps at each length", .max = 1e6});
    s("run", run, {.help = "machine and numbers"});
    s("tokenizer", tokenizer, {.help = "byte-level BPE"});
    s("model", model, {.help = "Qwen3 architecture, tied head"});
    s("data", data, {.help = "mixture and needles"});
    s("train", train, {.help = "the loop"});
  }
};

PretrainRecipe read_pretrain_recipe(const std::filesystem::path& path,
                                    const std::vector<std::string>& set);

// RUN/data/*.tok, RUN/tokenizer/tokenizer.json, RUN/pretrain/step-N/, RUN/model/ (bf16). Resumable.
// Called by every rank.
void pretrain(const PretrainRecipe& recipe, const std::filesystem::path& run,
              Communicator& ranks = one_rank());

}  // namespace halo
