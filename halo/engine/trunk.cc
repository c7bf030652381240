#include "halo/engine/trunk.h"

#include <algorithm>

#include "ATen/ATen.h"
#include "halo/base/check.h"
#include "halo/kernels/linear/linear.h"
#include "halo/kernels/rms_norm/rms_norm.h"
#include "halo/kernels/swiglu/swiglu.h"

namespace halo {
namespace {

constexpr int64_t kNone = -1;

uint64_t key_of(int64_t before, int64_t token) {
  return static_cast<uint64_t>(before + 1) << 32 | static_cast<uint64_t>(token);
}

at::Tensor index(const std::vector<int64_t>& rows, const at::Tensor& like) {
  return to_device(at::tensor(rows, at::kLong), like.device());
}

// Where the keys of a batch's tokens are in the pool's blocks laid end to end: [N].
std::vector<int64_t> cells_of(const Batch& batch, int64_t block_size) {
  std::vector<int64_t> cells;
  const int64_t* blocks = batch.block_table.const_data_ptr<int64_t>();
  for (int64_t s = 0; s < batch.sequences.count(); ++s, blocks += batch.block_table.size(1)) {
    const int64_t end = batch.lengths[s];
    for (int64_t t = end - batch.sequences.length(s); t < end; ++t) {
      cells.push_back(blocks[t / block_size] * block_size + t % block_size);
    }
  }
  return cells;
}

// The sequences `chosen` of a batch, and where their tokens are in it.
struct Part {
  Batch batch;
  std::vector<int64_t> rows;
};
Part part_of(const Batch& batch, const std::vector<int64_t>& chosen) {
  Part part;
  std::vector<int64_t> offsets = {0}, lengths;
  for (const int64_t s : chosen) {
    const int64_t begin = batch.sequences.offsets()[s], end = batch.sequences.offsets()[s + 1];
    for (int64_t row = begin; row < end; ++row) part.rows.push_back(row);
    offsets.push_back(std::ssize(part.rows));
    lengths.push_back(batch.lengths[s]);
  }
  const at::Tensor rows = index(part.rows, batch.tokens);
  part.batch = make_batch(batch.tokens.index_select(0, rows), batch.positions.index_select(0, rows),
                          Sequences(std::move(offsets), batch.tokens.device()));
  part.batch.kernels = batch.kernels;
  part.batch.state = batch.state;
  part.batch.block_table = batch.block_table.index_select(0, at::tensor(chosen, at::kLong));
  part.batch.lengths = std::move(lengths);
  part.batch.slots = batch.slots.index_select(0, index(chosen, batch.slots));
  return part;
}

void check_type(const EngineOptions& options) {
  HALO_CHECK(options.kv_type == KvType::kComputed, "trunk: keys and values are kept as computed");
}

}  // namespace

LayerFlops flops_of(const LayerWeights& layer) {
  const auto products = [](const Weight& w) {
    return w.defined() ? 2 * static_cast<double>(w.value.numel()) : 0;
  };
  LayerFlops flops{0, products(layer.gate_up) + products(layer.down)};
  if (const auto* w = std::get_if<AttentionWeights>(&layer.mixer)) {
    flops.heads = products(w->qkvg) + products(w->biased_gate);
    flops.rest += products(w->o_proj);
  } else {
    const auto& l = std::get<LightningWeights>(layer.mixer);
    flops.heads = products(l.qkvz);
    flops.rest += products(l.o_proj);
  }
  return flops;
}

at::Tensor Trunk::Rows::all() {
  if (parts.size() > 1) parts = {at::cat(parts)};
  return parts.front();
}

EngineOptions Trunk::recording(EngineOptions options) {
  check_type(options);
  options.forward = [this](const DecoderWeights& weights, const Batch& batch,
                           const DecoderCall& call) { return record(weights, batch, call); };
  return options;
}

EngineOptions Trunk::replaying(EngineOptions options, int64_t layer) {
  check_type(options);
  options.forward = [this, layer](const DecoderWeights& weights, const Batch& batch,
                                  const DecoderCall& call) {
    return replay(weights, batch, call, layer);
  };
  return options;
}

int64_t Trunk::bytes_per_token(const DecoderWeights& weights) {
  const at::Tensor& embedding = weights.embedding.value;
  int64_t elements = 0;
  for (const LayerWeights& layer : weights.layers) {
    elements += embedding.size(1);
    if (const auto* mixer = std::get_if<AttentionWeights>(&layer.mixer)) {
      elements += 2 * mixer->kv_heads * mixer->head_dim;
    }
  }
  return elements * static_cast<int64_t>(embedding.element_size());
}

int64_t Trunk::find(int64_t before, int64_t token) const {
  const auto row = rows_.find(key_of(before, token));
  return row == rows_.end() ? kNone : row->second;
}

std::vector<int64_t> Trunk::rows_of(std::span<const int64_t> text, int64_t count) const {
  std::vector<int64_t> rows;
  const size_t first = text.size() - static_cast<size_t>(count);
  int64_t row = kNone;
  for (size_t t = 0; t < text.size(); ++t) {
    row = find(row, text[t]);
    if (row == kNone) return {};
    if (t >= first) rows.push_back(row);
  }
  return rows;
}

void Trunk::count(const DecoderWeights& weights, int64_t first, int64_t last, int64_t tokens) {
  for (int64_t i = first; i < last; ++i) {
    const LayerFlops flops = flops_of(weights.layers[i]);
    cost_.flops += static_cast<double>(tokens) * (flops.heads + flops.rest);
  }
}

at::Tensor Trunk::finish(const DecoderWeights& weights, const at::Tensor& hidden,
                         const Batch& batch, const DecoderCall& call) {
  const int64_t last = std::ssize(weights.layers) - 1;
  const LayerWeights& layer = weights.layers[last];
  const LayerFlops flops = flops_of(layer);
  cost_.flops += static_cast<double>(hidden.size(0)) * flops.heads +
                 static_cast<double>(call.rows.size()) * flops.rest;
  for (const LayerWeights& every : weights.layers) {
    const LayerFlops whole = flops_of(every);
    cost_.whole_flops += static_cast<double>(hidden.size(0)) * (whole.heads + whole.rest);
  }
  const at::Tensor rows = index(call.rows, hidden);
  const at::Tensor heads = mixer_heads(
      layer.mixer, weights.eps, rms_norm(hidden, layer.input_norm, weights.eps), batch, last);
  if (call.rows.empty()) return heads.new_empty({0, hidden.size(1)});
  const at::Tensor mixed = std::visit(
      [&](const auto& w) {
        return linear(heads.index_select(0, rows), w.o_proj, w.o_bias, batch.kernels);
      },
      layer.mixer);
  const auto [sum, normed] =
      add_rms_norm(hidden.index_select(0, rows), mixed, layer.post_norm, weights.eps);
  const at::Tensor mlp = linear(swiglu(linear(normed, layer.gate_up, {}, batch.kernels)),
                                layer.down, {}, batch.kernels);
  return add_rms_norm(sum, mlp, weights.norm, weights.eps).second;
}

at::Tensor Trunk::record(const DecoderWeights& weights, const Batch& batch,
                         const DecoderCall& call) {
  const int64_t last = std::ssize(weights.layers) - 1;
  layers_.resize(weights.layers.size());
  std::vector<int64_t> fresh;  // rows of the batch that are read for the first time
  int64_t at = 0;
  for (size_t s = 0; s < call.texts.size(); ++s) {
    const std::span<const int64_t> text = call.texts[s];
    const size_t first = text.size() - static_cast<size_t>(batch.sequences.length(s));
    int64_t row = kNone;
    size_t t = 0;
    for (; t < first && (t == 0 || row != kNone); ++t) row = find(row, text[t]);
    const bool known = t == 0 || row != kNone;  // recorded steps are not
    for (t = first; t < text.size(); ++t, ++at) {
      if (!known) continue;
      const auto [place, added] = rows_.try_emplace(key_of(row, text[t]), std::ssize(rows_));
      row = place->second;
      if (added) fresh.push_back(at);
    }
  }
  const at::Tensor rows = index(fresh, batch.tokens);
  at::Tensor cells;
  at::Tensor hidden = embed(weights, batch);
  for (int64_t i = 0; i <= last; ++i) {
    Layer& kept = layers_[i];
    if (!fresh.empty()) kept.hidden.parts.push_back(hidden.index_select(0, rows));
    if (i == last) break;
    HALO_CHECK(std::holds_alternative<AttentionWeights>(weights.layers[i].mixer),
               "trunk: layer {} is no attention, so its states are not kept", i);
    hidden = decode_layers(weights, i, i + 1, hidden, batch);
    if (fresh.empty()) continue;
    const LayerState& state = (*batch.state)[i];
    if (!cells.defined()) {
      cells = index(cells_of(batch, state.keys.size(1)), hidden).index_select(0, rows);
    }
    kept.keys.parts.push_back(state.keys.flatten(0, 1).index_select(0, cells));
    kept.values.parts.push_back(state.values.flatten(0, 1).index_select(0, cells));
  }
  count(weights, 0, last, hidden.size(0));
  return finish(weights, hidden, batch, call);
}

at::Tensor Trunk::replay(const DecoderWeights& weights, const Batch& batch, const DecoderCall& call,
                         int64_t layer) {
  HALO_CHECK(layers_.size() == weights.layers.size(), "trunk: nothing was recorded");
  const int64_t last = std::ssize(weights.layers) - 1;
  std::vector<int64_t> known, unknown;  // sequences
  std::vector<int64_t> kept;            // rows of what is known
  for (int64_t s = 0; s < batch.sequences.count(); ++s) {
    const std::vector<int64_t> rows = rows_of(call.texts[s], batch.sequences.length(s));
    kept.insert(kept.end(), rows.begin(), rows.end());
    (rows.empty() ? unknown : known).push_back(s);
  }
  at::Tensor hidden;
  if (known.empty()) {
    hidden = decode_layers(weights, 0, layer, embed(weights, batch), batch);
    count(weights, 0, layer, hidden.size(0));
  } else {
    const at::Tensor rows = index(kept, batch.tokens);
    hidden = layers_[layer].hidden.all().index_select(0, rows);
    const Part part = unknown.empty() ? Part{batch, {}} : part_of(batch, known);
    at::Tensor cells;
    for (int64_t i = 0; i < layer; ++i) {
      LayerState& state = (*batch.state)[i];
      if (!cells.defined()) cells = index(cells_of(part.batch, state.keys.size(1)), hidden);
      state.keys.flatten(0, 1).index_copy_(0, cells, layers_[i].keys.all().index_select(0, rows));
      state.values.flatten(0, 1).index_copy_(0, cells,
                                             layers_[i].values.all().index_select(0, rows));
    }
    if (!unknown.empty()) {
      const Part other = part_of(batch, unknown);
      const at::Tensor own =
          decode_layers(weights, 0, layer, embed(weights, other.batch), other.batch);
      count(weights, 0, layer, own.size(0));
      const at::Tensor places = index(part.rows, hidden);
      at::Tensor both = at::empty({batch.tokens.size(0), hidden.size(1)}, hidden.options());
      both.index_copy_(0, places, hidden);
      both.index_copy_(0, index(other.rows, hidden), own);
      hidden = both;
    }
  }
  count(weights, layer, last, hidden.size(0));
  return finish(weights, decode_layers(weights, layer, last, hidden, batch), batch, call);
}

}  // namespace halo
