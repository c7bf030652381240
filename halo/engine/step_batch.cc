#include "halo/engine/step_batch.h"

#include "ATen/ATen.h"

namespace halo {

StepBatch::StepBatch(const DecoderWeights& weights, const std::vector<LayerState>& layers,
                     int64_t rows, int64_t max_blocks, const GraphMemory& memory)
    : weights_(weights),
      layers_(layers),
      memory_(memory),
      state_(make_decode_state(weights, rows, max_blocks)),
      held_(rows) {
  // One copy brings all of them.
  numbers_ = at::stack({state_.tokens, state_.positions, state_.lengths, state_.slots});
  state_.tokens = numbers_[0];
  state_.positions = numbers_[1];
  state_.lengths = numbers_[2];
  state_.slots = numbers_[3];
  state_.cache = std::make_shared<PositionCache>(state_.positions);
}

void StepBatch::fill(std::span<const StepRow> rows) {
  const at::Tensor numbers = at::zeros(numbers_.sizes(), at::kLong);
  numbers[3].fill_(-1);
  auto to = numbers.accessor<int64_t, 2>();
  for (size_t i = 0; i < rows.size(); ++i) {
    const StepRow& row = rows[i];
    const auto column = static_cast<int64_t>(i);
    to[0][column] = row.token;
    to[1][column] = row.position;
    to[2][column] = row.position + 1;
    to[3][column] = row.slot;
    Held& held = held_[i];
    if (held.sequence == row.sequence && held.blocks == row.blocks->size()) continue;
    held = {row.sequence, row.blocks->size()};
    const at::Tensor blocks = at::tensor(*row.blocks, at::kInt);
    state_.block_table[column].narrow(0, 0, blocks.numel()).copy_(blocks);
  }
  numbers_.copy_(numbers);
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
  return logits.narrow(0, 0, std::ssize(rows));
}

}  // namespace halo
