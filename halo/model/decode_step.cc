// Five calls a layer, where the kernels take them: norm and stacked
// projection; the mixer; output norm, gate, projection and residual; norm, MLP's first half and
// SwiGLU; its second half and residual.
#include "halo/model/decode_step.h"

#include <algorithm>
#include <cmath>

#include "ATen/ATen.h"
#include "halo/base/check.h"
#include "halo/kernels/attention/decode_attention_launch.h"
#include "halo/kernels/embedding/embedding.h"
#include "halo/kernels/lightning/lightning_decode.h"
#include "halo/kernels/linear/fused_linear.h"

namespace halo {
namespace {

// So many tokens of every sequence, which one call of attention takes, and the lengths with them.
struct TokenPart {
  int64_t begin, count;
  at::Tensor lengths;  // [S]
};

// What the layers of one step share.
struct Step {
  const DecodeState& state;
  at::Tensor rows;  // [S n]: where keys and values go; undefined without attention layers
  std::vector<TokenPart> parts;  // likewise
  double eps;
  Kernels kernels;
};

// The gate's columns of a stacked projection: its last; undefined without one.
template <class Mixer>
at::Tensor gate_of(const at::Tensor& stacked, const Mixer& w) {
  if (!w.gate) return {};
  const int64_t columns = w.heads * w.head_dim;
  return stacked.narrow(1, stacked.size(1) - columns, columns);
}

template <class Mixer>
HeadSplit split_of(const Mixer& w, double eps) {
  return {w.heads, w.kv_heads, w.head_dim, w.gate, eps};
}

at::Tensor projection(const Step& step, const at::Tensor& hidden, const Weight& norm,
                      const Weight& w, const Weight& bias) {
  return fused_linear(hidden, {.norm = norm, .eps = step.eps, .w = w, .bias = bias}, step.kernels);
}

// The tokens of a step in parts that a call takes.
std::vector<TokenPart> parts_of(const DecodeState& state, const AttentionWeights& w) {
  const int64_t tokens = state.tokens.numel() / state.lengths.numel();
  const int64_t most = std::max<int64_t>(1, kMostDecodeRows / (w.heads / w.kv_heads));
  std::vector<TokenPart> parts;
  for (int64_t begin = 0; begin < tokens; begin += most) {
    const int64_t count = std::min(most, tokens - begin), behind = tokens - begin - count;
    parts.push_back(
        {begin, count, behind == 0 ? state.lengths : (state.lengths - behind).clamp_min(0)});
  }
  return parts;
}

// q [S n, H, d] -> o [S n, H, d].
at::Tensor attend(const Step& step, const AttentionWeights& w, const at::Tensor& q,
                  const LayerState& layer) {
  const double scale = 1 / std::sqrt(static_cast<double>(w.head_dim));
  const auto run = [&](const at::Tensor& queries, const at::Tensor& lengths) {
    const DecodeCache cache{layer, step.state.block_table, lengths};
    return decode_attention(queries, cache, scale, step.state.scratch, step.kernels);
  };
  if (step.parts.size() == 1) return run(q, step.parts[0].lengths);
  const int64_t sequences = step.state.lengths.numel();
  const at::Tensor tokens = q.unflatten(0, {sequences, -1});
  std::vector<at::Tensor> o;
  for (const TokenPart& part : step.parts) {
    const at::Tensor queries = tokens.narrow(1, part.begin, part.count).flatten(0, 1);
    o.push_back(run(queries.contiguous(), part.lengths).unflatten(0, {sequences, -1}));
  }
  return at::cat(o, 1).flatten(0, 1);
}

at::Tensor run_mixer(const Step& step, const AttentionWeights& w, const Weight& norm,
                     const at::Tensor& hidden, const LayerState& layer) {
  at::Tensor stacked = projection(step, hidden, norm, w.qkvg, w.qkv_bias);
  if (w.biased_gate.defined()) {
    stacked = at::cat({stacked, projection(step, hidden, norm, w.biased_gate, {})}, 1);
  }
  const DecodeState& state = step.state;
  const at::Tensor q = split_heads_store(stacked, split_of(w, step.eps), w.q_norm, w.k_norm,
                                         state.cache->rope(w.inv_freq, w.rope_magnitude),
                                         state.cache->scale(w.logit_scale), {layer, step.rows});
  const at::Tensor o = attend(step, w, q, layer).flatten(1);
  return fused_linear(
      o, {.gate = gate_of(stacked, w), .w = w.o_proj, .bias = w.o_bias, .residual = hidden},
      step.kernels);
}

at::Tensor run_mixer(const Step& step, const LightningWeights& w, const Weight& norm,
                     const at::Tensor& hidden, const LayerState& layer) {
  HALO_CHECK(!w.decay.defined(), "decode step: learned decays have no form here");
  const at::Tensor stacked = projection(step, hidden, norm, w.qkvz, w.qkvz_bias);
  const LightningDecode args{.split = split_of(w, step.eps),
                             .q_norm = w.q_norm,
                             .k_norm = w.k_norm,
                             .rope = step.state.cache->rope(w.inv_freq, w.rope_magnitude),
                             .slopes = w.slopes,
                             .scale = w.scale};
  const at::Tensor o =
      lightning_decode(stacked, args, layer.recurrent, step.state.slots, step.kernels);
  return fused_linear(o,
                      {.norm = w.o_norm,
                       .eps = step.eps,
                       .gate = gate_of(stacked, w),
                       .w = w.o_proj,
                       .bias = w.o_bias,
                       .residual = hidden},
                      step.kernels);
}

at::Tensor run_layer(const Step& step, const LayerWeights& layer, at::Tensor hidden,
                     const LayerState& state) {
  hidden = std::visit(
      [&](const auto& mixer) { return run_mixer(step, mixer, layer.input_norm, hidden, state); },
      layer.mixer);
  const at::Tensor inner = fused_linear(
      hidden, {.norm = layer.post_norm, .eps = step.eps, .w = layer.gate_up, .swiglu = true},
      step.kernels);
  return fused_linear(inner, {.w = layer.down, .residual = hidden}, step.kernels);
}

}  // namespace

bool can_record_step(const DecoderWeights& weights, int64_t block_size, bool int8_keys) {
  const at::Tensor& like = weights.embedding.value;
  const auto has_kernel = [&](const LayerWeights& layer) {
    if (const auto* a = std::get_if<AttentionWeights>(&layer.mixer)) {
      return has_decode_attention_kernel(like, {.rows = a->heads / a->kv_heads,
                                                .head_dim = a->head_dim,
                                                .block_size = block_size,
                                                .int8 = int8_keys});
    }
    const auto& l = std::get<LightningWeights>(layer.mixer);
    return !l.decay.defined() && has_lightning_decode_kernel(like, l.heads, l.head_dim);
  };
  return std::ranges::all_of(weights.layers, has_kernel);
}

DecodeState make_decode_state(const DecoderWeights& weights, int64_t sequences, int64_t max_blocks,
                              int64_t tokens) {
  const at::Device device = weights.embedding.value.device();
  const auto options = at::TensorOptions().device(device).dtype(at::kLong);
  DecodeState state;
  state.tokens = at::zeros({sequences * tokens}, options);
  state.positions = at::zeros({sequences * tokens}, options);
  state.lengths = at::zeros({sequences}, options);
  state.block_table = at::zeros({sequences, max_blocks}, options.dtype(at::kInt));
  state.slots = at::full({sequences}, -1, options);
  int64_t heads = 1, head_dim = 1;
  for (const LayerWeights& layer : weights.layers) {
    const auto* attention = std::get_if<AttentionWeights>(&layer.mixer);
    if (!attention) continue;
    heads = std::max(heads, attention->heads);
    head_dim = std::max(head_dim, attention->head_dim);
  }
  state.scratch = make_decode_scratch(sequences, tokens, heads, head_dim, device);
  state.cache = std::make_shared<PositionCache>(state.positions);
  return state;
}

at::Tensor decode_step(const DecoderWeights& weights, const DecodeState& state,
                       const std::vector<LayerState>& layers, Kernels kernels) {
  const at::NoGradGuard no_grad;
  DecodeState fresh = state;
  fresh.cache = state.cache->without_tables();
  Step step{fresh, {}, {}, weights.eps, kernels};
  for (size_t i = 0; i < layers.size(); ++i) {
    const LayerState& layer = layers[i];
    const auto* attention = std::get_if<AttentionWeights>(&weights.layers[i].mixer);
    if (!attention) continue;
    step.parts = parts_of(state, *attention);
    step.rows = newest_rows({layer, state.block_table, state.lengths},
                            state.tokens.numel() / state.lengths.numel());
    break;
  }
  at::Tensor hidden = embedding(state.tokens, weights.embedding);
  for (size_t i = 0; i < weights.layers.size(); ++i)
    hidden = run_layer(step, weights.layers[i], std::move(hidden), layers[i]);
  return fused_linear(
      hidden, {.norm = weights.norm, .eps = weights.eps, .w = weights.head, .wide = true}, kernels);
}

}  // namespace halo
