#include "halo/engine/step_batch.h"

#include <algorithm>
#include <array>
#include <numeric>
#include <utility>

#include "ATen/ATen.h"

namespace halo {

RowBlocks::RowBlocks(at::Tensor table)
    : table_(std::move(table)), held_(static_cast<size_t>(table_.size(0))) {}

// In one copy, of all rows from the first that changes to the last: where a sequence ends, those
// behind it move up, and a GPU would wait for a copy for each.
void RowBlocks::send(std::span<const StepRow> rows) {
  size_t first = rows.size(), end = 0, width = 0;
  for (size_t i = 0; i < rows.size(); ++i) {
    const Held& held = held_[i];
    if (held.sequence == rows[i].sequence && held.blocks == rows[i].blocks->size()) continue;
    first = std::min(first, i);
    end = i + 1;
  }
  if (first >= end) return;
  const auto changed = rows.subspan(first, end - first);
  for (const StepRow& row : changed) width = std::max(width, row.blocks->size());
  const std::array<int64_t, 2> sizes = {std::ssize(changed), static_cast<int64_t>(width)};
  const at::Tensor blocks = at::zeros(sizes, at::kInt);
  auto* to = blocks.mutable_data_ptr<int32_t>();
  for (const StepRow& row : changed) {
    std::ranges::transform(*row.blocks, to, [](int64_t b) { return static_cast<int32_t>(b); });
    to += width;
  }
  table_.narrow(0, static_cast<int64_t>(first), sizes[0])
      .narrow(1, 0, sizes[1])
      .copy_(to_device(blocks, table_.device()));
  // Only now: what a copy that failed did not bring is sent again.
  for (size_t i = first; i < end; ++i) held_[i] = {rows[i].sequence, rows[i].blocks->size()};
}

StepBatch::StepBatch(const DecoderWeights& weights, const std::vector<LayerState>& layers,
                     int64_t rows, int64_t tokens, int64_t max_blocks, const GraphMemory& memory)
    : weights_(weights),
      layers_(layers),
      memory_(memory),
      state_(make_decode_state(weights, rows, max_blocks, tokens)),
      rows_(rows),
      tokens_(tokens),
      blocks_(state_.block_table) {
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
  }
  blocks_.send(rows);
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
