// What a conversion will take, before anything runs.
#pragma once

#include "halo/base/json.h"
#include "halo/formats/model_config.h"
#include "halo/stages/recipe.h"

namespace halo {

// Per stage: tokens, steps, FLOPs (2 a multiply-add; attention counted causal), seconds at the
// given matrix rate, bytes of memory (parameters, gradients, moments, activations of a micro-batch)
// and of disk. Reads the teacher's config.json; opens no shard.
json::object plan(const Recipe& recipe, double matrix_gflops);

// FLOPs of one token of a step of stage 1 (`student` has the mixers that are trained in every
// layer), 2 and 3: the teacher's forward pass and the student's forward and backward.
double align_flops(const ModelConfig& teacher, const ModelConfig& student, int64_t length);
double finetune_flops(const ModelConfig& student, int64_t length);
double distill_flops(const ModelConfig& teacher, const ModelConfig& student, int64_t length);

// A plan as a table for people.
std::string format_plan(const json::object& plan);

}  // namespace halo
