// A Transformer beside models that differ from it in one layer's mixer: what lies below that layer
// is the same in all of them and computed once.
//
// The Transformer's own engine keeps the residual stream before every layer, keys and values of
// each token it reads. An engine of a swapped model finds them by the text up to the token, however
// it orders, splits or shares its sequences, and goes on from its layer. A sequence that the
// Transformer has not read, as an answer from where it differs on, is run whole.
#pragma once

#include <cstdint>
#include <span>
#include <unordered_map>
#include <vector>

#include "halo/engine/engine.h"

namespace halo {

// A token's products with a layer's weights: up to the heads' output, and behind it.
struct LayerFlops {
  double heads = 0, rest = 0;
};
LayerFlops flops_of(const LayerWeights& layer);

// Products with layers' weights.
struct TrunkCost {
  double flops = 0;
  double whole_flops = 0;  // of the same decoder calls, every layer for every token
};

class Trunk {
 public:
  // `options` for an engine of the Transformer itself. Refers to this, as what replaying() gives.
  EngineOptions recording(EngineOptions options);
  // `options` for an engine of it with another mixer in layer `layer`.
  EngineOptions replaying(EngineOptions options, int64_t layer);

  // Bytes that a recorded token takes.
  static int64_t bytes_per_token(const DecoderWeights& weights);
  // Of all engines so far.
  const TrunkCost& cost() const { return cost_; }

 private:
  // What is kept of a layer, a row a token, in the order in which they were first read.
  struct Rows {
    std::vector<at::Tensor> parts;

    at::Tensor all();  // of one part from then on
  };
  struct Layer {
    Rows hidden;        // [n, D] before it
    Rows keys, values;  // [n, G, d]
  };

  // The row of a token behind the text that ends with row `before`; -1: the text is empty, or the
  // token is not there.
  int64_t find(int64_t before, int64_t token) const;
  // Those of a text's last `count` tokens; empty where one of them is not there.
  std::vector<int64_t> rows_of(std::span<const int64_t> text, int64_t count) const;
  at::Tensor record(const DecoderWeights& weights, const Batch& batch, const DecoderCall& call);
  at::Tensor replay(const DecoderWeights& weights, const Batch& batch, const DecoderCall& call,
                    int64_t layer);
  void count(const DecoderWeights& weights, int64_t first, int64_t last, int64_t tokens);
  // The last layer and what follows, of the rows that are wanted.
  at::Tensor finish(const DecoderWeights& weights, const at::Tensor& hidden, const Batch& batch,
                    const DecoderCall& call);

  std::vector<Layer> layers_;
  std::unordered_map<uint64_t, int64_t> rows_;  // by the row before and the token
  TrunkCost cost_;
};

}  // namespace halo
