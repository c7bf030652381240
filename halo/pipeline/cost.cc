#include "halo/pipeline/cost.h"

#include <algorithm>
#include <map>

#include "halo/base/settings.h"
#include "halo/kernels/logit_loss/chunked_loss.h"
#include "halo/model/decoder.h"

namespace halo {
namespace {

// What steps on an H200 take, all that comparisons/results has of one GPU (plan_test.cc), beside
// products at the rate of large ones: attention, forward and backward in its fixed order, has this
// share of that rate, and an element takes this many bytes at the memory's rate by its data sheet.
constexpr double kAttentionReached = 0.45, kBytesOfAnElement = 8;

// Blocks of a Hopper, each with a sum of its own of dq (attention_aten.cc); other cards have about
// as many.
constexpr int64_t kBlocks = 132;

// Of a token's forward pass in the mixers, between their projections: of attention, QK^T and PV,
// half masked; of lightning, the state and a chunk of 64.
double attention_flops(const ModelConfig& c, int64_t length) {
  return double(std::ranges::count(c.mixer_types, MixerType::kAttention)) * 2.0 *
         double(c.num_heads * c.head_dim) * double(length);
}

double mixing_flops(const ModelConfig& c, int64_t length) {
  const double width = double(c.lightning_heads * c.lightning_head_dim);
  return attention_flops(c, length) +
         double(std::ranges::count(c.mixer_types, MixerType::kLightning)) *
             (4.0 * width * double(c.lightning_head_dim) + 2.0 * width * 64);
}

// Of a token's forward pass, 2 a multiply-add: all matrices, the head, the mixers.
double forward_flops(const ModelConfig& c, int64_t length, bool with_head) {
  double flops = 2.0 * double(num_parameters(decoder_parameters(c)));
  flops -= 2.0 * double(c.vocab_size * c.hidden_size) * (c.tie_word_embeddings ? 1 : 2);
  if (with_head) flops += 2.0 * double(c.vocab_size * c.hidden_size);
  return flops + mixing_flops(c, length);
}

// Elements a mixer keeps for backward, behind its input: the stacked projections, q, k, v, the
// gate, the mixed values and the gated ones.
int64_t mixer_elements(const ModelConfig& c, MixerType type, bool gate) {
  const bool attention = type == MixerType::kAttention;
  const int64_t d = attention ? c.head_dim : c.lightning_head_dim;
  const int64_t heads = (attention ? c.num_heads : c.lightning_heads) * d;
  const int64_t shared = (attention ? c.num_kv_heads : c.lightning_kv_heads) * d;
  return 2 * (heads + 2 * shared) + heads + (gate ? 3 * heads : 0);
}

ParameterCount parameters_of(const std::vector<ParameterSpec>& specs) {
  std::map<int64_t, int64_t> layers;
  for (const ParameterSpec& spec : specs) layers[layer_of(spec.name)] += num_parameters({spec});
  ParameterCount count;
  for (const auto& [layer, parameters] : layers) {
    count.all += parameters;
    if (layer < 0) {
      count.of_no_layer = parameters;
    } else {
      count.largest_layer = std::max(count.largest_layer, parameters);
    }
  }
  return count;
}

bool has_gate(const ModelConfig& c, MixerType type) {
  return type == MixerType::kAttention ? c.attn_use_output_gate : c.lightning_use_output_gate;
}

// Elements a token in a layer: the residual stream and the normed one, twice, the mixer, gate and
// up and their product.
int64_t layer_elements(const ModelConfig& c, MixerType type) {
  return 4 * c.hidden_size + mixer_elements(c, type, has_gate(c, type)) + 3 * c.intermediate_size;
}

int64_t largest_layer(const ModelConfig& c) {
  int64_t largest = 0;
  for (MixerType type : c.mixer_types) largest = std::max(largest, layer_elements(c, type));
  return largest;
}

double forward_elements(const ModelConfig& c) {
  double elements = 0;
  for (MixerType type : c.mixer_types) elements += double(layer_elements(c, type));
  return elements;
}

// Elements a token for a whole student: those of each layer; at the end the hidden states of both
// models, the student's gradient and its last residual stream. Where layers are recomputed, each
// keeps its two inputs, and one layer at a time the rest, with the gradients of its MLP.
int64_t decoder_elements(const ModelConfig& c, bool recompute) {
  int64_t elements = 4 * c.hidden_size;
  for (MixerType type : c.mixer_types) {
    elements += recompute ? 2 * c.hidden_size : layer_elements(c, type);
  }
  return recompute ? elements + largest_layer(c) + 3 * c.intermediate_size : elements;
}

}  // namespace

StageCost align_cost(const ModelConfig& teacher, const ModelConfig& student, int64_t length) {
  const MixerType type = student.mixer_types[0];
  const int64_t width = type == MixerType::kAttention
                            ? student.num_heads * student.head_dim
                            : student.lightning_heads * student.lightning_head_dim;
  StageCost cost;
  cost.trained = parameters_of(all_mixer_parameters(student));
  cost.frozen = parameters_of(decoder_parameters(teacher));
  // Backward stops at the mixers' input, so the gradient of their first product's is not needed.
  cost.layer_flops_a_token = 4.0 * double(cost.trained.all) +
                             2.0 * double(student.num_layers * student.hidden_size * width) +
                             3 * mixing_flops(student, length);
  cost.num_layers = student.num_layers;
  cost.flops_a_token = forward_flops(teacher, length, false) + cost.layer_flops_a_token;
  cost.attention_flops_a_token = attention_flops(teacher, length);
  if (type == MixerType::kAttention)
    cost.attention_flops_a_token += 3 * attention_flops(student, length);
  // Forward the student's mixers read what the teacher left; backward nothing goes on.
  cost.worked_elements_a_token =
      forward_elements(teacher) +
      2 * double(student.num_layers) *
          double(mixer_elements(student, type, has_gate(student, type)) + 2 * student.hidden_size);
  cost.passed_on_a_token = 2 * student.num_layers * student.hidden_size;  // input and output
  // One layer at a time: its input, target, output's gradient and the residual stream; what its
  // mixer keeps, and the gradients of that but for the last two.
  const bool gate = has_gate(student, type);
  cost.elements_a_token =
      4 * student.hidden_size + 2 * (mixer_elements(student, type, gate) - (gate ? 2 : 1) * width);
  return cost;
}

StageCost finetune_cost(const ModelConfig& student, int64_t length, bool recompute) {
  StageCost cost;
  cost.flops_a_token = 3 * forward_flops(student, length, true);
  if (recompute) cost.flops_a_token += forward_flops(student, length, false);
  const double passes = recompute ? 4 : 3;  // backward is as two
  cost.attention_flops_a_token = passes * attention_flops(student, length);
  cost.worked_elements_a_token = passes * forward_elements(student);
  cost.trained = parameters_of(decoder_parameters(student));
  cost.elements_a_token = decoder_elements(student, recompute);
  if (recompute && cost.attention_flops_a_token > 0) {
    cost.elements_in_attention =
        cost.elements_a_token - 3 * student.intermediate_size -
        (largest_layer(student) - layer_elements(student, MixerType::kAttention)) -
        3 * student.intermediate_size;
    cost.attention_bytes = 4 * kBlocks * student.head_dim * length;
  }
  cost.exchanged_a_token = (recompute ? 3 : 2) *
                           std::ranges::count(student.mixer_types, MixerType::kAttention) * 2 *
                           (student.num_heads + student.num_kv_heads) * student.head_dim;
  cost.vocabulary = student.vocab_size;
  cost.hidden_size = student.hidden_size;
  cost.logits = 1;
  return cost;
}

StageCost distill_cost(const ModelConfig& teacher, const ModelConfig& student, int64_t length,
                       bool recompute) {
  StageCost cost = finetune_cost(student, length, recompute);
  cost.flops_a_token += forward_flops(teacher, length, true);
  cost.attention_flops_a_token += attention_flops(teacher, length);
  cost.worked_elements_a_token += forward_elements(teacher);
  cost.frozen = parameters_of(decoder_parameters(teacher));
  cost.logits = 2;
  return cost;
}

StageCost on_policy_cost(const ModelConfig& teacher, const ModelConfig& student, int64_t length,
                         bool recompute) {
  StageCost cost = distill_cost(teacher, student, length, recompute);
  cost.flops_a_token += forward_flops(student, length, true);
  cost.attention_flops_a_token += attention_flops(student, length);
  cost.worked_elements_a_token += forward_elements(student);
  for (const MixerType type : student.mixer_types) {
    if (type == MixerType::kAttention) {
      cost.written_elements += 2 * length * student.num_kv_heads * student.head_dim;
    } else {
      cost.written_bytes +=
          4 * student.lightning_heads * student.lightning_head_dim * student.lightning_head_dim;
    }
  }
  return cost;
}

double token_seconds(const StageCost& cost, const Rates& rates, bool expected) {
  const double rate = 1e9 * rates.matrix_gflops;
  if (!expected) return cost.flops_a_token / rate;
  return (cost.flops_a_token + (1 / kAttentionReached - 1) * cost.attention_flops_a_token) / rate +
         kBytesOfAnElement * cost.worked_elements_a_token / (1e9 * rates.memory_gbytes);
}

int64_t saturated(double bytes) {
  return bytes < double(kMaxCount) ? static_cast<int64_t>(bytes) : static_cast<int64_t>(kMaxCount);
}

namespace {

// Of what is trained and frozen, on a rank; `c` bytes a value of the compute type.
double parameter_bytes(const StageCost& cost, double c, Shard shard, int64_t ranks) {
  const auto trained = double(cost.trained.all), frozen = double(cost.frozen.all);
  // Masters, of which fp32 computes with those that are whole; two moments; gradients.
  const double masters = c == 4 ? 0 : 4, state = 8 + 4;
  if (ranks == 1 || shard == Shard::kNone) {
    return trained * (c + masters + state) + frozen * c;
  }
  const double part = trained / double(ranks);
  // Weights and gradients are whole, masters and moments are not.
  if (shard == Shard::kOptimizer) return trained * (c + 4) + part * 12 + frozen * c;
  // A micro-batch's gradients, before they are summed: of two layers, and of what belongs to none.
  const double gradients =
      4 * (2 * double(cost.trained.largest_layer) + double(cost.trained.of_no_layer));
  // Weights of two layers of each model, and of what belongs to none.
  const double weights = c * (2 * double(cost.trained.largest_layer + cost.frozen.largest_layer) +
                              double(cost.trained.of_no_layer + cost.frozen.of_no_layer));
  return part * (c + masters + state) + frozen / double(ranks) * c + gradients + weights;
}

}  // namespace

int64_t peak_memory(const StageCost& cost, int64_t tokens, int64_t compute_bytes, bool cpu,
                    Shard shard, int64_t ranks) {
  // In floating point: a recipe may name more than 64 bits hold.
  const auto held = [&](int64_t elements) {
    return double(tokens) * double(elements) * double(compute_bytes);
  };
  double bytes = parameter_bytes(cost, double(compute_bytes), shard, ranks) +
                 double(cost.kept_bytes) +
                 std::max(held(cost.elements_a_token),
                          held(cost.elements_in_attention) + double(cost.attention_bytes));
  if (cost.logits > 0) {
    const int64_t rows = std::min(tokens, rows_per_chunk(cost.vocabulary, cpu));
    bytes += double(cost.logits * rows * cost.vocabulary * (cpu ? 4 : compute_bytes)) +
             // the head's gradient, before it is scaled
             double(cost.vocabulary * cost.hidden_size * 4);
  }
  return saturated(bytes);
}

int64_t peak_memory_by_layers(const StageCost& cost, int64_t tokens, int64_t compute_bytes,
                              Shard shard, int64_t ranks) {
  StageCost own = cost;
  const int64_t layers = (cost.num_layers + ranks - 1) / ranks;
  own.trained.all = layers * cost.trained.largest_layer;
  own.frozen = {};
  const auto c = double(compute_bytes);
  double frozen = double(cost.frozen.all) * c;
  if (shard == Shard::kFull) {
    frozen = frozen / double(ranks) +
             c * double(2 * cost.frozen.largest_layer + cost.frozen.of_no_layer);
  }
  // What is passed on of as many layers as there are ranks: by layer, as one tensor, and from all.
  const double passed =
      3 * double(tokens) * double(cost.passed_on_a_token) / double(cost.num_layers) * c;
  return saturated(parameter_bytes(own, c, Shard::kNone, 1) + frozen + passed +
                   double(cost.kept_bytes) + double(tokens) * double(cost.elements_a_token) * c);
}

}  // namespace halo
