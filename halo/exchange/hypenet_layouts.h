// The three forms in which the authors' code leaves a HypeNet (hypenet.md 1.4).
#pragma once

#include <string>
#include <vector>

#include "halo/formats/model_config.h"
#include "halo/formats/safetensors.h"

namespace halo {

enum class HypenetLayout {
  kFinal,   // model.layers.{i}.self_attn.*: the plain form, that of teachers too
  kStage1,  // model.model.layers.{i}.self_attn.{teacher_layer|student_layer}.*
  kStage2,  // teacher_model.*, student_model.*
};

// By the names of the tensors.
HypenetLayout find_layout(const std::vector<TensorView>& tensors);

// The student's tensors under the names of the plain form. Stage 1: an attention layer of `config`
// takes teacher_layer (there is no o_gate), a lightning layer student_layer. Stage 2: the teacher
// is dropped. Names that belong to neither are an Error.
std::vector<TensorView> student_tensors(const std::vector<TensorView>& tensors,
                                        HypenetLayout layout, const ModelConfig& config,
                                        const std::string& from);

}  // namespace halo
