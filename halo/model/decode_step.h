// A step of decoding: n new tokens, mostly one, of each of S sequences through the whole model.
// Everything that changes from step to step is read from tensors of fixed place on the device, so
// that a step can be recorded as a CUDA graph (halo/runtime/graph.h) and launched again for other
// tokens, lengths and sequences.
#pragma once

#include <vector>

#include "halo/kernels/attention/decode_attention.h"
#include "halo/model/decoder.h"
#include "halo/model/position_cache.h"

namespace halo {

struct DecodeState {
  at::Tensor tokens;       // [S n] int64: the new ones
  at::Tensor positions;    // [S n] int64: theirs
  at::Tensor lengths;      // [S] int64: the last one's position + 1; 0: there is no such sequence
  at::Tensor block_table;  // [S, max_blocks] int32
  at::Tensor slots;        // [S] int64: rows of LayerState::recurrent; negative: no such sequence
  DecodeScratch scratch;
  std::shared_ptr<PositionCache> cache;  // of positions; holds what the device was once sent
};

// New tokens of a sequence in a recorded step, at most: more rows of activations than the kernels
// take at once would cost another reading of the weights.
inline constexpr int64_t kMostStepTokens = 4;

// Whether a step reads nothing on the host, so that it can be recorded: on a GPU, where every mixer
// has its kernel for blocks of this many tokens, with keys and values in int8 or not. Decays that
// are learned have none.
bool can_record_step(const DecoderWeights& weights, int64_t block_size, bool int8_keys);

// For up to S sequences of up to max_blocks blocks, none of them there. tokens are 0.
DecodeState make_decode_state(const DecoderWeights& weights, int64_t sequences, int64_t max_blocks,
                              int64_t tokens = 1);

// Logits [S n, V] fp32 after each of the new tokens, whose keys, values and recurrent states are
// stored. Rows of sequences that are not there have any value, and nothing of them is stored.
at::Tensor decode_step(const DecoderWeights& weights, const DecodeState& state,
                       const std::vector<LayerState>& layers, Kernels kernels);

}  // namespace halo
