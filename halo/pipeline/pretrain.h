// Trains a tokenizer and a Qwen3-like Transformer from nothing: the small teachers of the demo and
// of the tests.
#pragma once

#include <filesystem>

#include "halo/stages/recipe.h"

namespace halo {

// RUN/data/*.tok, RUN/tokenizer/tokenizer.json, RUN/pretrain/step-N/, RUN/model/ (bf16). Resumable.
void pretrain(const PretrainRecipe& recipe, const std::filesystem::path& run);

}  // namespace halo
