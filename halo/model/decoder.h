// The decoder: one function over a ragged batch for training, prefill and decode (hypenet.md 1).
// Weights are values (handles of tensors): a copy with another mixer in layer i is another model,
// sharing everything else.
//
// Letters: N tokens of the batch, D hidden size, H/G query and key/value heads, d head size,
// F MLP size, V vocabulary.
#pragma once

#include <filesystem>
#include <functional>
#include <memory>
#include <string>
#include <variant>
#include <vector>

#include "halo/formats/model_config.h"
#include "halo/kernels/attention/attention.h"
#include "halo/kernels/common/sequences.h"
#include "halo/kernels/common/weight.h"
#include "halo/model/parameters.h"

namespace halo {

struct AttentionWeights {
  Weight qkvg;            // [(H + 2G (+ H)) d, D]: q, k, v and, if gated, o_gate
  Weight qkv_bias;        // [(H + 2G) d] or undefined; o_gate has no bias, so
  Weight biased_gate;     // [H d, D]: o_gate where there are biases; qkvg then holds q, k, v alone
  Weight q_norm, k_norm;  // [d] or undefined
  Weight o_proj, o_bias;  // [D, H d], [D] or undefined
  int64_t heads = 0, kv_heads = 0, head_dim = 0;
  bool gate = false;
  std::vector<double> inv_freq;  // d/2; empty: no rotation (NoPE)
  double rope_magnitude = 1;
  LogitScale logit_scale;
};

struct LightningWeights {
  Weight qkvz;               // [(H + 2G (+ H)) d, D]: q, k, v and, if gated, z_proj
  Weight qkvz_bias;          // [the same rows] or undefined
  Weight q_norm, k_norm;     // [d] or undefined
  Weight o_norm;             // [H d] or undefined
  Weight decay, decay_bias;  // [H, D], [H]: of gated_log_decay(); undefined: fixed decays
  Weight o_proj, o_bias;     // [D, H d], [D] or undefined
  int64_t heads = 0, kv_heads = 0, head_dim = 0;
  bool gate = false;
  double scale = 1;
  std::vector<double> slopes;    // H
  std::vector<double> inv_freq;  // d/2; empty: no rotation
  double rope_magnitude = 1;
};

using Mixer = std::variant<AttentionWeights, LightningWeights>;

struct LayerWeights {
  Weight input_norm;  // [D]
  Mixer mixer;
  Weight post_norm;  // [D]
  Weight gate_up;    // [2F, D]
  Weight down;       // [D, F]
};

struct DecoderWeights {
  Weight embedding;  // [V, D]
  std::vector<LayerWeights> layers;
  Weight norm;  // [D]
  Weight head;  // [V, D]; the embedding itself where tied
  double eps = 0;
  // Where several ranks have the weights between them: asked before and behind each layer.
  std::shared_ptr<LayerSharing> sharing;
};

// ---- From a configuration to weights.

// Every parameter of the model, in the order of the arenas.
std::vector<ParameterSpec> decoder_parameters(const ModelConfig& config);
// Those of layer `layer`'s mixer alone ("<prefix>self_attn..." with prefix "model.layers.{i}.").
std::vector<ParameterSpec> mixer_parameters(const ModelConfig& config, int64_t layer);
// Of every layer's, in their order: what stage 1 trains.
std::vector<ParameterSpec> all_mixer_parameters(const ModelConfig& config);
// Handles into the store (names as decoder_parameters gives them).
DecoderWeights bind_decoder(const ModelConfig& config, const ParameterStore& store);
Mixer bind_mixer(const ModelConfig& config, int64_t layer, const ParameterStore& store);
// Of every layer; empty of those that are another rank's.
std::vector<Mixer> bind_mixers(const ModelConfig& config, const ParameterStore& store);
// The same values with handles that ask for no gradient.
DecoderWeights without_gradients(DecoderWeights weights);
// The same model with another logit scale in every attention layer (an inference-time setting).
DecoderWeights with_logit_scale(DecoderWeights weights, const LogitScale& scale);

// A model as it stands in memory.
struct Model {
  ModelConfig config;
  std::shared_ptr<ParameterStore> store;
  DecoderWeights weights;
};
// Reads config.json and the weights of a Hugging Face directory.
Model load_model(const std::filesystem::path& directory, ParameterStore::Use use,
                 at::ScalarType compute, at::Device device, const Sharing& sharing = {});
// Writes config.json and model.safetensors (`dtype` of the file), not the side files. Called by all
// ranks that have the store between them, the first of which writes.
void save_model(const std::filesystem::path& directory, const ModelConfig& config,
                const ParameterStore& store, DType dtype);

// ---- State of sequences, owned by the caller (engine) and passed in as views.

// Attention layers have blocks of keys and values.
struct LayerState : KeyValueBlocks {
  // Lightning layers: [num_slots, H, d, d] fp32.
  at::Tensor recurrent;
};

// Rotary tables and logit scales, computed once a batch and shared by the layers that use them.
class PositionCache;
// Of what a batch is a part, where several ranks have one (context_part.h).
struct ContextPart;

struct Batch {
  at::Tensor tokens;     // [N] int64
  at::Tensor positions;  // [N] int64
  Sequences sequences;
  Kernels kernels = Kernels::kFast;
  bool deterministic = true;  // AttentionSettings
  // For backward each layer keeps its input alone and runs again (activation checkpointing).
  bool recompute_layers = false;
  // Training and scoring without a past leave the rest empty.
  std::vector<LayerState>* state = nullptr;  // one a layer
  at::Tensor block_table;                    // [S, max_blocks] int64, host
  std::vector<int64_t> lengths;              // [S] tokens of each sequence after this batch
  at::Tensor slots;                          // [S] int64 on the device: rows of recurrent
  std::shared_ptr<PositionCache> cache;      // made by make_batch
  std::shared_ptr<const ContextPart> part;   // only where there is no state
};

// Positions 0.. in every sequence, no state. tokens [N] int64 on any device.
Batch make_batch(const at::Tensor& tokens, std::vector<int64_t> offsets, at::Device device);
// The same with given positions [N] int64 (a continued prompt).
Batch make_batch(const at::Tensor& tokens, std::vector<int64_t> offsets,
                 const at::Tensor& positions, at::Device device);
// The same of tensors on the device of `sequences`.
Batch make_batch(const at::Tensor& tokens, const at::Tensor& positions, Sequences sequences);
// `batch` after its tensors got other values in place: what was computed from positions is
// forgotten, what the device was once sent (the frequencies) it keeps.
Batch with_new_cache(Batch batch);
// [N] int64 on the host, from 0 in every sequence.
at::Tensor positions_of(const std::vector<int64_t>& offsets);

// ---- The forward pass.

at::Tensor embed(const DecoderWeights& weights, const Batch& batch);  // [N, D]
// The residual stream after layers first .. last-1, from the one before layer `first`.
at::Tensor decode_layers(const DecoderWeights& weights, int64_t first, int64_t last,
                         const at::Tensor& hidden, const Batch& batch);
at::Tensor final_norm(const DecoderWeights& weights, const at::Tensor& hidden);  // [N, D]
// The residual stream between layers, and what is still to be added to it, so that the next norm
// can add both in one pass. A pass that stops there and goes on has the bits of decode().
struct ResidualStream {
  at::Tensor hidden;  // [N, D]
  at::Tensor delta;   // [N, D], or undefined
};
ResidualStream decode_layers(const DecoderWeights& weights, int64_t first, int64_t last,
                             ResidualStream stream, const Batch& batch);
at::Tensor final_norm(const DecoderWeights& weights, const ResidualStream& stream);
// embed, all layers, final norm.
at::Tensor decode(const DecoderWeights& weights, const Batch& batch);

// One mixer on its (normalised) input x [N, D] -> [N, D]: stage 1's unit.
at::Tensor run_mixer(const Mixer& mixer, double eps, const at::Tensor& x, const Batch& batch,
                     int64_t layer);

// The same without o_proj: [N, H d], normed and gated (what `match` and `lsq` are fitted to).
at::Tensor mixer_heads(const Mixer& mixer, double eps, const at::Tensor& x, const Batch& batch,
                       int64_t layer);

// Calls `visit(layer, mixer_input, mixer_output)` for every layer on the way (no gradients): what
// stage 1 aligns to. Returns the residual stream after the last layer.
at::Tensor decode_visiting(const DecoderWeights& weights, const Batch& batch,
                           const std::function<void(int64_t layer, const at::Tensor& input,
                                                    const at::Tensor& output)>& visit);

// Logits [N, V] of hidden states in fp32 (for generation and comparison; losses never call this).
at::Tensor logits(const DecoderWeights& weights, const at::Tensor& hidden, Kernels kernels);

}  // namespace halo
