#include "halo/engine/step_batch.h"

#include <algorithm>
#include <numeric>

#include "ATen/ATen.h"

namespace halo {

StepBatch::StepBatch(const DecoderWeights& weights, const std::vector<LayerState>& layers,
                     int64_t rows, int64_t tokens, int64_t max_blocks, const GraphMemory& memory)
    : weights_(weights),
      layers_(layers),
      memory_(memory),
      state_(make_decode_state(weights, rows, max_blocks, tokens)),
      rows_(rows),
      tokens_(tokens),
      held_(rows) {
  // One copy brings all of them.
  numbers_ = at::cat({state_.tokens, state_.positions, state_.lengths, state_.slots});
  const auto parts = numbers_.split_with_sizes({rows * tokens, rows * tokens, rows, rows});
  state_.tokens = parts[0];
  state_.positions = parts[1];
  state_.lengths = parts[2];
  state_.slots = parts[3];
  state_.cache = std::make_shared<PositionCache>(state_.positions);
}

void StepBatch::fill(std::span<const StepRow> rows) {
  const at::Tensor numbers = at::zeros(numbers_.sizes(), at::kLong);
  int64_t* tokens = numbers.mutable_data_ptr<int64_t>();
  int64_t* positions = tokens + rows_ * tokens_;
  int64_t* lengths = positions + rows_ * tokens_;
  int64_t* slots = lengths + rows_;
  std::fill_n(slots, rows_, -1);
  for (size_t i = 0; i < rows.size(); ++i) {
    const StepRow& row = rows[i];
    tokens = std::ranges::copy(row.tokens, tokens).out;
    std::iota(positions, positions + tokens_, row.position);
    positions += tokens_;
    lengths[i] = row.position + tokens_;
    slots[i] = row.slot;
    Held& held = held_[i];
    if (held.sequence == row.sequence && held.blocks == row.blocks->size()) continue;
    held = {row.sequence, row.blocks->size()};
    const at::Tensor blocks = to_device(at::tensor(*row.blocks, at::kInt), numbers_.device());
    state_.block_table[static_cast<int64_t>(i)].narrow(0, 0, blocks.numel()).copy_(blocks);
  }
  numbers_.copy_(to_device(numbers, numbers_.device()));
}

at::Tensor StepBatch::run(std::span<const StepRow> rows) {
  const at::NoGradGuard no_grad;
  fill(rows);
  const auto step = [&] { logits_ = decode_step(weights_, state_, layers_, Kernels::kFast); };
  at::Tensor logits;
  if (graph_) {
    graph_->launch();
    logits = logits_;
  } else {
    // In earnest once, which sets up the libraries; recording runs nothing.
    step();
    logits = logits_;
    graph_ = std::make_unique<CudaGraph>(numbers_.device(), memory_, step);
  }
  return logits.narrow(0, 0, std::ssize(rows) * tokens_);
}

}  // namespace halo
