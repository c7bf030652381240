// What the losses on top of a head share: logits of a chunk of rows at a time, a loss that turns a
// chunk's logits into their own gradient in place, and the autograd node around the loop.
// Internal to halo/kernels, but for rows_per_chunk, which the plan of a conversion counts with.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <functional>

#include "halo/kernels/common/weight.h"

namespace halo {

// Rows of one chunk: enough for an efficient matrix product, few enough that the buffer of logits
// stays in the cache (CPU) or within half a gigabyte (GPU).
int64_t rows_per_chunk(int64_t vocabulary, bool cpu);

// hidden head^T for consecutive rows, in a buffer that the next call overwrites.
class ChunkLogits {
 public:
  // hidden [N, D], head [V, D] of one type, fp32 or bf16. Multiplied in fp32 on the CPU. `logits`
  // is the type of the logits: fp32, or hidden's.
  ChunkLogits(const at::Tensor& hidden, const at::Tensor& head, at::ScalarType logits);

  at::Tensor rows(int64_t first, int64_t count);        // [count, V]
  const at::Tensor& hidden() const { return hidden_; }  // in the type of the products
  const at::Tensor& head() const { return head_; }

 private:
  at::Tensor hidden_, head_, buffer_;
};

// Rows first .. first + n - 1 of the batch.
struct LossChunk {
  int64_t first = 0;
  // [n, V]; to be overwritten by d loss / d logits where `gradient`. fp32, but in training by our
  // kernels on a GPU, which sum in fp32, in hidden's type.
  at::Tensor logits;
  at::Tensor losses;      // [n] fp32, to be written
  bool gradient = false;  // without it the logits are scratch space
};
using ChunkLoss = std::function<void(const LossChunk& chunk)>;

// The rows' weights in `loss`: [rows] fp32, contiguous, or undefined: all 1. An Error otherwise.
void check_row_weights(const char* loss, const at::Tensor& weights, int64_t rows);

// Those of the chunk's rows; undefined where `weights` is.
at::Tensor chunk_weights(const at::Tensor& weights, const LossChunk& chunk);

// Sum of the row losses, fp32 scalar, with gradients for hidden and head.grad where they are
// wanted.
at::Tensor chunked_loss(const at::Tensor& hidden, const Weight& head, const ChunkLoss& loss);

// The loss of every row, [N] fp32. No gradients.
at::Tensor chunked_row_losses(const at::Tensor& hidden, const at::Tensor& head,
                              const ChunkLoss& loss);

}  // namespace halo
