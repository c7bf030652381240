// A model beside models that differ from it in one layer's mixer: what lies below that layer is the
// same in all of them and computed once.
//
// The model's own engine keeps the residual stream before every layer of its decoder calls; an
// engine of a swapped model that is called in the same way goes through the kept calls in order,
// each from its layer on. The first call that feeds other tokens, and all behind it, are run whole.
#pragma once

#include <cstdint>
#include <vector>

#include "halo/engine/engine.h"

namespace halo {

class Trunk {
 public:
  // `options` for an engine of the model itself. `with_state`: what sequences keep is kept too, so
  // that the others can go on from it (generation).
  EngineOptions recording(EngineOptions options, bool with_state);
  // `options` for an engine of the model with another mixer in layer `layer`, for one go through
  // the calls. Refers to this.
  EngineOptions replaying(EngineOptions options, int64_t layer);
  // Forgets the calls.
  void clear() { calls_.clear(); }

  // Bytes that a token of a recorded call takes.
  static int64_t bytes_per_token(const DecoderWeights& weights, bool with_state);
  // Tokens times the layers that they went through, of all engines so far.
  double layer_tokens() const { return layer_tokens_; }

 private:
  struct Call {
    at::Tensor tokens;               // [N]
    std::vector<at::Tensor> hidden;  // [N, D] before each layer
    at::Tensor blocks;               // those of the call's sequences, and of each layer
    std::vector<LayerState> state;   // what is in them, or in the slots; empty: not kept
  };
  at::Tensor record(const DecoderWeights& weights, const Batch& batch, bool with_state);
  at::Tensor replay(const DecoderWeights& weights, const Batch& batch, int64_t layer, size_t& next);

  std::vector<Call> calls_;
  double layer_tokens_ = 0;
};

}  // namespace halo
