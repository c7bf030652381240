// Memory of a pool of blocks or slots.
#pragma once

#include <ATen/core/Tensor.h>

namespace halo {

// Blocks that hold so many tokens.
inline int64_t num_blocks(int64_t tokens, int64_t block_size) {
  return (tokens + block_size - 1) / block_size;
}

// Zeros, because a masked product with memory nobody wrote may be NaN. On a CPU they take memory
// page by page, as they are first written.
at::Tensor zero_pool(at::IntArrayRef shape, const at::TensorOptions& options);

}  // namespace halo
