// Training text sampled from the teacher itself, so that no corpus is needed.
#pragma once

#include <filesystem>
#include <string>

#include "halo/base/json.h"
#include "halo/kernels/sample/sample.h"
#include "halo/runtime/run_recipe.h"

namespace halo {

struct SynthesizeArgs {
  std::string teacher;         // Hugging Face directory
  std::filesystem::path out;   // folder of shards
  int64_t tokens = 1'000'000;  // sampled in all, about
  int64_t length = 1024;       // longest document
  SampleArgs sample{.temperature = 1};
  int64_t batch = 64;  // documents at a time
  int64_t seed = 1;
  MachineRecipe machine;
  std::string command;  // for the shard's provenance

  void settings(Settings& s) {
    s("tokens", tokens, {.help = "tokens in all", .min = 1, .max = 1e15});
    s("length", length, {.help = "longest document, tokens", .min = 3, .max = 16'777'216});
    s("sample", sample, {});
    s("batch", batch, {.help = "documents at a time", .min = 1, .max = 1e6});
    s("seed", seed, {.help = "of the sampling", .max = kMaxCount});
    s("machine", machine, {});
  }
};

// Each document begins with the begin token, where the tokenizer has one, and a token that starts
// with a capital letter, drawn uniformly. It ends with the end token, where the teacher says so or
// would begin another document, or where it reaches `length`. Documents in which the teacher wrote
// a needle of its own (NeedleWriter::mentions_needle) or a token that the tokenizer lacks are
// dropped. Returns counts.
json::object synthesize(const SynthesizeArgs& args);

}  // namespace halo
