// Steps of decoding for up to a fixed number of sequences, recorded as a CUDA graph.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "halo/model/decode_step.h"
#include "halo/runtime/graph.h"

namespace halo {

// One sequence's part in a step.
struct StepRow {
  int64_t sequence;                    // id: what a row held before it need not be sent again
  std::span<const int64_t> tokens;     // the new ones
  int64_t position, slot;              // the first one's place
  const std::vector<int64_t>* blocks;  // of all tokens, the new ones included
};

// Which blocks the sequences of a step's rows have, on the device.
class RowBlocks {
 public:
  // `table` [rows, max_blocks] int32, which stays where it is.
  explicit RowBlocks(at::Tensor table);
  // In the table's first rows.size() rows, each sequence's blocks; what is behind them has any
  // value. What was sent before is not sent again.
  void send(std::span<const StepRow> rows);

 private:
  // A sequence's first so many blocks.
  struct Held {
    int64_t sequence = -1;
    size_t blocks = 0;
  };

  at::Tensor table_;
  std::vector<Held> held_;
};

class StepBatch {
 public:
  // For n new tokens each of at most `rows` sequences of at most max_blocks blocks of `layers`,
  // whose tensors stay where they are while this lives. All rows take part in a step, those without
  // a sequence for nothing.
  StepBatch(const DecoderWeights& weights, const std::vector<LayerState>& layers, int64_t rows,
            int64_t tokens, int64_t max_blocks, const GraphMemory& memory);

  // Logits [rows.size() n, V] fp32, which the next step of any batch with this memory overwrites.
  at::Tensor run(std::span<const StepRow> rows);

 private:
  void fill(std::span<const StepRow> rows);

  const DecoderWeights& weights_;
  const std::vector<LayerState>& layers_;
  const GraphMemory& memory_;
  DecodeState state_;
  const int64_t rows_, tokens_;
  at::Tensor numbers_;  // int64: what of state_ changes with every step
  RowBlocks blocks_;
  at::Tensor logits_;
  std::unique_ptr<CudaGraph> graph_;
};

}  // namespace halo
