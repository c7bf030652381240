// halo quantize: a model whose matrices are int8, to be run alone (docs/formats/int8.md).
#pragma once

#include <filesystem>

#include "halo/base/json.h"
#include "halo/base/settings.h"

namespace halo {

enum class QuantizedWeights { kInt8 };
inline constexpr Word<QuantizedWeights> kQuantizedWeights[] = {{"int8", QuantizedWeights::kInt8}};

struct QuantizeArgs {
  std::filesystem::path model, out;
  QuantizedWeights weights = QuantizedWeights::kInt8;

  void settings(Settings& s) {
    s("weights", weights, kQuantizedWeights, {.help = "what matrices become"});
  }
};

// Writes `out` as decoder_parameters has it of a configuration with int8_weights: every matrix but
// the embedding as round(w / scale), scale = largest |w| of the row / 127 (1 for a row of zeros);
// all else as it is stored. Where the head is the embedding, it becomes a matrix of its own.
// Weights are checked as in loading; one matrix at a time is in memory. `out` is then whole or,
// after an error, as it was; one that holds something is an Error.
// Returns {"matrices", "bytes_before", "bytes_after" (of all tensors), "relative_error" (rms of the
// matrices' differences over their rms)}.
json::object quantize_model(const QuantizeArgs& args);

}  // namespace halo
