// The texts that a recipe mixes, and how much of each. Internal to halo/data.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "halo/data/loader.h"
#include "halo/data/token_stream.h"

namespace halo {

struct Mixture {
  std::vector<std::unique_ptr<TokenStream>> parts;
  std::vector<double> weights;  // of rows, one a part, any sum
};
// The parts of data.shards, each in an order of its own by the seed.
Mixture open_mixture(const DataRecipe& recipe, const std::string& tokenizer_hash, uint64_t seed);

}  // namespace halo
