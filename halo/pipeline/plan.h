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

// What a micro-batch of a stage costs: the teacher's forward pass, the student's forward and
// backward.
struct StageCost {
  double flops_a_token = 0;
  int64_t trained_parameters = 0, frozen_parameters = 0;
  int64_t elements_a_token = 0;                         // of the compute type, alive at once
  int64_t vocabulary = 0, hidden_size = 0, logits = 0;  // of the loss; 0: it has no head
};
// Of stage 1 (`student` has the mixers that are trained in every layer), 2 and 3, on rows of
// `length` tokens, without activation checkpointing or (`recompute`) with it.
StageCost align_cost(const ModelConfig& teacher, const ModelConfig& student, int64_t length);
StageCost distill_cost(const ModelConfig& teacher, const ModelConfig& student, int64_t length,
                       bool recompute = false);
StageCost finetune_cost(const ModelConfig& student, int64_t length, bool recompute = false);

// Bytes of tensors at the peak of a micro-batch of `tokens`: masters, gradients, moments and
// compute copies, the frozen weights, what backward needs, the loss' buffers, with the kernels of a
// GPU (others keep a little more).
int64_t peak_memory(const StageCost& cost, int64_t tokens, int64_t compute_bytes, bool cpu);

// A plan as a table for people.
std::string format_plan(const json::object& plan);

}  // namespace halo
