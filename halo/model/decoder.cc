// The forward pass (hypenet.md 1). One function over a ragged batch for training, prefill and
// decode.
#include "halo/model/decoder.h"

#include "ATen/ATen.h"
#include "halo/base/check.h"
#include "halo/kernels/common/operation.h"
#include "halo/kernels/embedding/embedding.h"
#include "halo/kernels/gate/gate.h"
#include "halo/kernels/lightning/lightning.h"
#include "halo/kernels/linear/linear.h"
#include "halo/kernels/rms_norm/rms_norm.h"
#include "halo/kernels/rope/rope.h"
#include "halo/kernels/store_rows/store_rows.h"
#include "halo/kernels/swiglu/swiglu.h"
#include "halo/model/context_part.h"
#include "halo/model/layer_sharing.h"
#include "halo/model/position_cache.h"
#include "halo/model/recompute.h"

namespace halo {

Batch make_batch(const at::Tensor& tokens, std::vector<int64_t> offsets,
                 const at::Tensor& positions, at::Device device) {
  return make_batch(to_device(tokens, device), to_device(positions, device),
                    Sequences(std::move(offsets), device));
}

Batch make_batch(const at::Tensor& tokens, const at::Tensor& positions, Sequences sequences) {
  HALO_CHECK(tokens.dim() == 1 && tokens.size(0) == sequences.num_tokens() &&
                 positions.sizes() == tokens.sizes(),
             "make_batch: {} tokens, {} positions, offsets end at {}", tokens.numel(),
             positions.numel(), sequences.num_tokens());
  Batch batch;
  batch.tokens = tokens;
  batch.positions = positions;
  batch.sequences = std::move(sequences);
  batch.cache = std::make_shared<PositionCache>(batch.positions);
  return batch;
}

Batch with_new_cache(Batch batch) {
  batch.cache = batch.cache->without_tables();
  return batch;
}

at::Tensor positions_of(const std::vector<int64_t>& offsets) {
  at::Tensor positions = at::empty({offsets.back()}, at::kLong);
  int64_t* data = positions.data_ptr<int64_t>();
  for (size_t s = 0; s + 1 < offsets.size(); ++s) {
    for (int64_t n = offsets[s]; n < offsets[s + 1]; ++n) data[n] = n - offsets[s];
  }
  return positions;
}

Batch make_batch(const at::Tensor& tokens, std::vector<int64_t> offsets, at::Device device) {
  const at::Tensor positions = positions_of(offsets);
  return make_batch(tokens, std::move(offsets), positions, device);
}

namespace {

bool has_past(const Batch& batch) {
  for (int64_t s = 0; s < batch.sequences.count(); ++s) {
    if (batch.lengths[s] != batch.sequences.length(s)) return true;
  }
  return false;
}

// Keys or values as they are read again: however a prompt is cut, what is seen is what is stored.
at::Tensor as_stored(const at::Tensor& x, const KeyValueBlocks& blocks) {
  if (blocks.is_int8()) return from_int8(to_int8(x), x.scalar_type());
  return x.to(blocks.keys.scalar_type()).to(x.scalar_type());
}

at::Tensor attend(const AttentionWeights& w, const Heads& heads, const Batch& batch,
                  int64_t layer) {
  const AttentionSettings settings{.scale = 1 / std::sqrt(static_cast<double>(w.head_dim)),
                                   .kernels = batch.kernels,
                                   .deterministic = batch.deterministic};
  if (batch.state) {
    const LayerState& state = (*batch.state)[layer];
    const PagedKeyValue cache{state, batch.block_table, batch.lengths};
    store_key_value(cache, heads.k, heads.v, batch.sequences);
    // int8 times a scale is rounded, which a sum of int8 times the scale is not.
    const bool in_place = state.is_int8() && batch.kernels == Kernels::kReference;
    if (in_place || has_past(batch)) {
      return paged_attention(heads.q, cache, batch.sequences, settings);
    }
    return causal_attention(heads.q, as_stored(heads.k, state), as_stored(heads.v, state),
                            batch.sequences, settings);
  }
  return batch.part ? context_attention(heads.q, heads.k, heads.v, *batch.part, settings)
                    : causal_attention(heads.q, heads.k, heads.v, batch.sequences, settings);
}

at::Tensor attention_heads(const AttentionWeights& w, double eps, const at::Tensor& x,
                           const Batch& batch, int64_t layer) {
  at::Tensor stacked = linear(x, w.qkvg, w.qkv_bias, batch.kernels);
  if (w.biased_gate.defined()) {
    stacked = at::cat({stacked, linear(x, w.biased_gate, {}, batch.kernels)}, 1);
  }
  const Heads heads = split_heads(stacked, {w.heads, w.kv_heads, w.head_dim, w.gate, eps}, w.q_norm,
                                  w.k_norm, batch.cache->rope(w.inv_freq, w.rope_magnitude),
                                  batch.cache->scale(w.logit_scale));
  const at::Tensor o = attend(w, heads, batch, layer).flatten(1);
  return w.gate ? norm_gate(o, {}, eps, heads.gate) : o;
}

at::Tensor lightning_heads(const LightningWeights& w, double eps, const at::Tensor& x,
                           const Batch& batch, int64_t layer) {
  const at::Tensor stacked = linear(x, w.qkvz, w.qkvz_bias, batch.kernels);
  const Heads heads = split_heads(stacked, {w.heads, w.kv_heads, w.head_dim, w.gate, eps}, w.q_norm,
                                  w.k_norm, batch.cache->rope(w.inv_freq, w.rope_magnitude), {});
  LightningArgs args{heads.q, heads.k, heads.v, w.slopes, w.scale, {}};
  if (w.decay.defined()) {
    args.log_decay = gated_log_decay(linear(x, w.decay, w.decay_bias, batch.kernels), w.slopes);
  }
  if (batch.state) args.state = (*batch.state)[layer].recurrent.index_select(0, batch.slots);
  at::Tensor o;
  if (batch.part) {
    o = context_lightning(args, batch.sequences, *batch.part, batch.kernels);
  } else {
    const LightningResult result = lightning_attention(args, batch.sequences, batch.kernels);
    if (batch.state) store_rows((*batch.state)[layer].recurrent, batch.slots, result.state);
    o = result.o;
  }
  o = o.flatten(1);
  return w.gate || w.o_norm.defined() ? norm_gate(o, w.o_norm, eps, heads.gate) : o;
}

using Visit = std::function<void(int64_t, const at::Tensor&, const at::Tensor&)>;

std::pair<at::Tensor, at::Tensor> norm_of(const ResidualStream& stream, const Weight& weight,
                                          double eps) {
  if (!stream.delta.defined()) return {stream.hidden, rms_norm(stream.hidden, weight, eps)};
  return add_rms_norm(stream.hidden, stream.delta, weight, eps);
}

ResidualStream run_layer(const LayerWeights& layer, double eps, ResidualStream stream,
                         const Batch& batch, int64_t index, const Visit* visit) {
  at::Tensor normed;
  std::tie(stream.hidden, normed) = norm_of(stream, layer.input_norm, eps);
  stream.delta = run_mixer(layer.mixer, eps, normed, batch, index);
  if (visit) (*visit)(index, normed, stream.delta);
  std::tie(stream.hidden, normed) = norm_of(stream, layer.post_norm, eps);
  stream.delta = linear(swiglu(linear(normed, layer.gate_up, {}, batch.kernels)), layer.down, {},
                        batch.kernels);
  return stream;
}

std::vector<at::Tensor> tensors_of(const ResidualStream& stream) {
  if (!stream.delta.defined()) return {stream.hidden};
  return {stream.hidden, stream.delta};
}

ResidualStream to_stream(const std::vector<at::Tensor>& tensors) {
  return {tensors[0], tensors.size() > 1 ? tensors[1] : at::Tensor()};
}

// Holds what the layer needs: handles.
ResidualStream recompute_layer(const LayerWeights& layer, double eps, const ResidualStream& stream,
                               const Batch& batch, int64_t index) {
  const auto run = [=](const std::vector<at::Tensor>& inputs) {
    return tensors_of(run_layer(layer, eps, to_stream(inputs), batch, index, nullptr));
  };
  return to_stream(recompute(run, tensors_of(stream)));
}

// Runs the layer between what ranks do for it that have it between them, forward and on the way
// back.
template <class Run>
ResidualStream run_shared(const std::shared_ptr<LayerSharing>& sharing, int64_t index,
                          ResidualStream stream, const Run& run) {
  if (!sharing) return run(std::move(stream));
  const bool goes_back = records({stream.hidden, stream.delta});
  sharing->acquire(index, index + 1, /*gradient=*/false);
  if (goes_back) {
    stream = to_stream(
        on_the_way_back(tensors_of(stream), [sharing, index] { sharing->release(index); }));
  }
  stream = run(std::move(stream));
  if (goes_back) {
    stream = to_stream(on_the_way_back(tensors_of(stream), [sharing, index] {
      sharing->acquire(index, index - 1, /*gradient=*/true);
    }));
  }
  sharing->release(index);
  return stream;
}

ResidualStream run_layers(const DecoderWeights& weights, int64_t first, int64_t last,
                          ResidualStream stream, const Batch& batch, const Visit* visit) {
  HALO_CHECK(0 <= first && first <= last && last <= static_cast<int64_t>(weights.layers.size()),
             "decode: layers {} to {} of {}", first, last, weights.layers.size());
  for (int64_t i = first; i < last; ++i) {
    const LayerWeights& layer = weights.layers[i];
    stream = run_shared(weights.sharing, i, std::move(stream), [&](ResidualStream in) {
      return batch.recompute_layers && records({in.hidden, in.delta})
                 ? recompute_layer(layer, weights.eps, in, batch, i)
                 : run_layer(layer, weights.eps, std::move(in), batch, i, visit);
    });
  }
  return stream;
}

at::Tensor sum(const ResidualStream& stream) {
  return stream.delta.defined() ? stream.hidden + stream.delta : stream.hidden;
}

}  // namespace

at::Tensor mixer_heads(const Mixer& mixer, double eps, const at::Tensor& x, const Batch& batch,
                       int64_t layer) {
  if (const auto* attention = std::get_if<AttentionWeights>(&mixer)) {
    return attention_heads(*attention, eps, x, batch, layer);
  }
  return lightning_heads(std::get<LightningWeights>(mixer), eps, x, batch, layer);
}

at::Tensor run_mixer(const Mixer& mixer, double eps, const at::Tensor& x, const Batch& batch,
                     int64_t layer) {
  const at::Tensor heads = mixer_heads(mixer, eps, x, batch, layer);
  return std::visit([&](const auto& w) { return linear(heads, w.o_proj, w.o_bias, batch.kernels); },
                    mixer);
}

at::Tensor embed(const DecoderWeights& weights, const Batch& batch) {
  return embedding(batch.tokens, weights.embedding).to(weights.norm.value.scalar_type());
}

at::Tensor decode_layers(const DecoderWeights& weights, int64_t first, int64_t last,
                         const at::Tensor& hidden, const Batch& batch) {
  return sum(run_layers(weights, first, last, {hidden, {}}, batch, nullptr));
}

ResidualStream decode_layers(const DecoderWeights& weights, int64_t first, int64_t last,
                             ResidualStream stream, const Batch& batch) {
  return run_layers(weights, first, last, std::move(stream), batch, nullptr);
}

at::Tensor final_norm(const DecoderWeights& weights, const at::Tensor& hidden) {
  return rms_norm(hidden, weights.norm, weights.eps);
}

at::Tensor final_norm(const DecoderWeights& weights, const ResidualStream& stream) {
  return norm_of(stream, weights.norm, weights.eps).second;
}

at::Tensor decode(const DecoderWeights& weights, const Batch& batch) {
  return final_norm(weights, run_layers(weights, 0, static_cast<int64_t>(weights.layers.size()),
                                        {embed(weights, batch), {}}, batch, nullptr));
}

at::Tensor decode_visiting(const DecoderWeights& weights, const Batch& batch, const Visit& visit) {
  at::NoGradGuard no_grad;
  return sum(run_layers(weights, 0, static_cast<int64_t>(weights.layers.size()),
                        {embed(weights, batch), {}}, batch, &visit));
}

at::Tensor logits(const DecoderWeights& weights, const at::Tensor& hidden, Kernels kernels) {
  return linear_to_fp32(hidden, weights.head, kernels);
}

}  // namespace halo
