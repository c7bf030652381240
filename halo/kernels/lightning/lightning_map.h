// How Hopper's copy engine finds the rows of a tensor.
#pragma once

#include <cuda.h>

#include "halo/kernels/lightning/lightning_launch.h"

namespace halo::lightning {

// bf16 rows [tokens, heads / rows.share, head_size] in boxes of `box_tokens` tokens x 64 columns of
// one head, which land in shared memory with the 128-byte swizzle. Tokens behind the last read as
// zero.
CUtensorMap make_row_map(const LightningRows& rows, int64_t tokens, int64_t heads,
                         int64_t head_size, int box_tokens);

}  // namespace halo::lightning
