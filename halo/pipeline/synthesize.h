// Training text sampled from the teacher itself, so that no corpus is needed.
#pragma once

#include <filesystem>
#include <string>

#include "halo/base/json.h"
#include "halo/stages/recipe.h"

namespace halo {

struct SynthesizeArgs {
  std::string teacher;         // Hugging Face directory
  std::filesystem::path out;   // folder of shards
  int64_t tokens = 1'000'000;  // sampled in all, about
  int64_t length = 1024;       // longest document
  double temperature = 1, top_p = 1;
  int64_t batch = 64;   // documents at a time
  std::string command;  // for the shard's provenance
  RunRecipe run;
};

// Each document begins with a token that starts with a capital letter, drawn uniformly, and ends
// with the end token or where it reaches `length`. Documents in which the teacher wrote a needle of
// its own are dropped (NeedleWriter::mentions_needle). Returns counts.
json::object synthesize(const SynthesizeArgs& args);

}  // namespace halo
