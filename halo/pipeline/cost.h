// What a stage costs: arithmetic and memory of a micro-batch.
#pragma once

#include "halo/formats/model_config.h"
#include "halo/runtime/run_recipe.h"

namespace halo {

struct ParameterCount {
  int64_t all = 0, largest_layer = 0, of_no_layer = 0;
};

// What a micro-batch of a stage costs: the teacher's forward pass, the student's forward and
// backward.
struct StageCost {
  double flops_a_token = 0;
  double layer_flops_a_token =
      0;  // of them those of all layers that stage 1 trains; 0: another one
  double attention_flops_a_token = 0;  // of all, those between the projections of attention
  double worked_elements_a_token = 0;  // of the compute type, that what stands between products
                                       // writes and reads again
  int64_t num_layers = 0;              // that it trains
  ParameterCount trained, frozen;
  // Bytes that a rank keeps whole beside them, however they are divided.
  int64_t kept_bytes = 0;
  int64_t elements_a_token = 0;  // of the compute type, alive at once
  // Where layers run again in backward, the same while an attention layer's own runs, beside whose
  // sums in a fixed order Flash has these bytes, once for all rows.
  int64_t elements_in_attention = 0, attention_bytes = 0;
  int64_t vocabulary = 0, hidden_size = 0, logits = 0;  // of the loss; 0: it has no head
  // Elements of the compute type that ranks which share rows exchange for each token, forward and
  // backward: q, k, v and o of the attention layers. The states of lightning layers are too small
  // to count.
  int64_t exchanged_a_token = 0;
  // Where ranks divide the layers of stage 1: the teacher's of all of them.
  int64_t passed_on_a_token = 0;
  // Of each text that the student writes, while it does: elements of the compute type, keys and
  // values, and bytes of states.
  int64_t written_elements = 0, written_bytes = 0;
};
// Of stage 1 (`student` has the mixers that are trained in every layer), 2 and 3, on rows of
// `length` tokens, without activation checkpointing or (`recompute`) with it.
StageCost align_cost(const ModelConfig& teacher, const ModelConfig& student, int64_t length);
StageCost distill_cost(const ModelConfig& teacher, const ModelConfig& student, int64_t length,
                       bool recompute = false);
StageCost finetune_cost(const ModelConfig& student, int64_t length, bool recompute = false);
// Of stage 4: every row is written before it is trained on.
StageCost on_policy_cost(const ModelConfig& teacher, const ModelConfig& student, int64_t length,
                         bool recompute = false);

// What a device does a second: GFLOP of matrix products, and GB of its memory by its data sheet; 0:
// not known.
struct Rates {
  Rates(double matrix_gflops, double memory_gbytes = 0)
      : matrix_gflops(matrix_gflops), memory_gbytes(memory_gbytes) {}
  double matrix_gflops, memory_gbytes;
};

// Seconds that a stage computes for a token: at least, all arithmetic at the rate of matrix
// products; or as expected of a GPU whose memory's rate is known, and a model whose micro-batches
// keep it busy.
double token_seconds(const StageCost& cost, const Rates& rates, bool expected);

// `bytes` as a count; 2^53 where they are more.
int64_t saturated(double bytes);

// Bytes of tensors at the peak of a micro-batch of `tokens`: masters, gradients, moments and
// compute copies, the frozen weights, what backward needs, the loss' buffers, with the kernels of a
// GPU (others keep a little more). Of one of `ranks` that have them between them as `shard` says.
int64_t peak_memory(const StageCost& cost, int64_t tokens, int64_t compute_bytes, bool cpu,
                    Shard shard = Shard::kNone, int64_t ranks = 1);
// The same of a rank that has layers of its own and a micro-batch of `tokens` with all of them.
int64_t peak_memory_by_layers(const StageCost& cost, int64_t tokens, int64_t compute_bytes,
                              Shard shard, int64_t ranks);

}  // namespace halo
