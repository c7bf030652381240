// Which stored tensors are a model's, under which names: the same as in transformers.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "halo/formats/model_config.h"
#include "halo/formats/safetensors.h"

namespace halo {

inline constexpr std::string_view kEmbeddingName = "model.embed_tokens.weight";
inline constexpr std::string_view kHeadName = "lm_head.weight";
// Behind the name of a matrix in int8: its rows' scales.
inline constexpr std::string_view kScaleSuffix = "_scale";

// Models that were saved without their head lack the prefix "model.": "layers.0...." and
// "norm.weight" become "model.layers.0...." and "model.norm.weight".
std::string full_tensor_name(std::string_view stored);

// Buffers that older programs saved, which follow from the configuration: rotary frequencies and
// their cosines, positions, causal masks.
bool is_constant_buffer(const TensorView& tensor);

// Whether the head is stored and another matrix than the embedding.
bool has_own_head(const std::vector<TensorView>& tensors);

// Those of `tensors` that the parameters of a model are read from: without constants, and where the
// head is the embedding, once, as the embedding.
std::vector<TensorView> model_tensors(std::vector<TensorView> tensors, const ModelConfig& config);

}  // namespace halo
