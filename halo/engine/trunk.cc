#include "halo/engine/trunk.h"

#include <algorithm>
#include <memory>

#include "ATen/ATen.h"
#include "halo/engine/pool.h"

namespace halo {
namespace {

// The blocks that the sequences of a call have: [B] int64 on the device, each once.
at::Tensor blocks_of(const Batch& batch, const at::Tensor& keys) {
  const int64_t block_size = keys.size(1);
  std::vector<int64_t> blocks;
  const int64_t* row = batch.block_table.const_data_ptr<int64_t>();
  for (const int64_t length : batch.lengths) {
    blocks.insert(blocks.end(), row, row + num_blocks(length, block_size));
    row += batch.block_table.size(1);
  }
  std::ranges::sort(blocks);
  blocks.erase(std::ranges::unique(blocks).begin(), blocks.end());
  return at::tensor(blocks, at::kLong).to(keys.device());
}

// Decoding: one more token of each sequence. Prompts are what engines share.
bool is_step(const Batch& batch) {
  const int64_t count = batch.sequences.count();
  return batch.sequences.num_tokens() == count &&
         std::ranges::none_of(batch.lengths, [](int64_t length) { return length == 1; });
}

}  // namespace

EngineOptions Trunk::recording(EngineOptions options, bool with_state) {
  options.forward = [this, with_state](const DecoderWeights& weights, const Batch& batch) {
    return record(weights, batch, with_state);
  };
  return options;
}

EngineOptions Trunk::replaying(EngineOptions options, int64_t layer) {
  options.forward = [this, layer, next = std::make_shared<size_t>(0)](const DecoderWeights& weights,
                                                                      const Batch& batch) {
    return replay(weights, batch, layer, *next);
  };
  return options;
}

int64_t Trunk::bytes_per_token(const DecoderWeights& weights, bool with_state) {
  const at::Tensor& embedding = weights.embedding.value;
  int64_t elements = 0;
  for (const LayerWeights& layer : weights.layers) {
    elements += embedding.size(1);
    const auto* mixer = std::get_if<AttentionWeights>(&layer.mixer);
    if (mixer && with_state) elements += 2 * mixer->kv_heads * mixer->head_dim;
  }
  return elements * static_cast<int64_t>(embedding.element_size());
}

at::Tensor Trunk::record(const DecoderWeights& weights, const Batch& batch, bool with_state) {
  const auto layers = static_cast<int64_t>(weights.layers.size());
  layer_tokens_ += static_cast<double>(batch.sequences.num_tokens() * layers);
  if (is_step(batch)) return decode(weights, batch);
  Call& call = calls_.emplace_back();
  call.tokens = batch.tokens;
  at::Tensor hidden = embed(weights, batch);
  for (int64_t i = 0; i < layers; ++i) {
    call.hidden.push_back(hidden);
    hidden = decode_layers(weights, i, i + 1, hidden, batch);
  }
  if (with_state) {
    for (const LayerState& state : *batch.state) {
      LayerState& kept = call.state.emplace_back();
      if (state.keys.defined()) {
        if (!call.blocks.defined()) call.blocks = blocks_of(batch, state.keys);
        kept.keys = state.keys.index_select(0, call.blocks);
        kept.values = state.values.index_select(0, call.blocks);
      }
      if (state.recurrent.defined()) kept.recurrent = state.recurrent.index_select(0, batch.slots);
    }
  }
  return final_norm(weights, hidden);
}

at::Tensor Trunk::replay(const DecoderWeights& weights, const Batch& batch, int64_t layer,
                         size_t& next) {
  const auto layers = static_cast<int64_t>(weights.layers.size());
  const auto tokens = static_cast<double>(batch.sequences.num_tokens());
  if (next >= calls_.size() || !calls_[next].tokens.equal(batch.tokens)) {
    next = calls_.size();
    layer_tokens_ += tokens * static_cast<double>(layers);
    return decode(weights, batch);
  }
  const Call& call = calls_[next++];
  for (int64_t i = 0; i < layer && !call.state.empty(); ++i) {
    LayerState& state = (*batch.state)[i];
    const LayerState& kept = call.state[i];
    if (state.keys.defined()) {
      state.keys.index_copy_(0, call.blocks, kept.keys);
      state.values.index_copy_(0, call.blocks, kept.values);
    }
    if (state.recurrent.defined()) state.recurrent.index_copy_(0, batch.slots, kept.recurrent);
  }
  layer_tokens_ += tokens * static_cast<double>(layers - layer);
  return final_norm(weights, decode_layers(weights, layer, layers, call.hidden[layer], batch));
}

}  // namespace halo
