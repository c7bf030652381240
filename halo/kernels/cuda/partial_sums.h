// The second pass of a sum over rows (partial_sums.cu): what each block summed, added up in order.
#pragma once

#include "halo/kernels/cuda/launch.h"

namespace halo {

// Blocks among which a kernel shares the rows of a sum: a number of the rows alone, so that the
// bits do not depend on the GPU.
inline int64_t partial_blocks(int64_t rows) {
  constexpr int64_t kMost = 512;
  return rows < kMost ? rows : kMost;
}

// target[c] += sum over blocks b of partial[b][c]. partial [blocks, columns], target [columns].
void launch_add_partial_sums(const float* partial, int64_t blocks, int64_t columns, float* target,
                             void* stream);

}  // namespace halo
