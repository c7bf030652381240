// Keys and values of sequences as they are kept: in the type that they were computed in, or as int8
// with scales (docs/decisions/int8-keys.md).
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>

namespace halo {

// Blocks of tokens. Row r is token r % block_size of block r / block_size.
struct KeyValueBlocks {
  at::Tensor keys, values;  // [num_blocks, block_size, G, d]
  // Where those are int8, fp32 [num_blocks, G, block_size]: a token's d numbers of a head stand for
  // themselves times its scale. Else undefined.
  at::Tensor key_scales = {}, value_scales = {};

  bool is_int8() const { return key_scales.defined(); }
};
// Whether all have the shapes and types above, and lie as they say.
bool are_blocks(const KeyValueBlocks& blocks);

// x [.., d] in fp32 or bf16 as int8 [.., d] times scales fp32 [..]: the largest number of each d is
// +-127. Where one is NaN or infinite all of them are no numbers.
struct Int8Rows {
  at::Tensor values, scales;
};
Int8Rows to_int8(const at::Tensor& x);
at::Tensor from_int8(const Int8Rows& rows, at::ScalarType type);  // [.., d]

// Stores x [N, G, d] at rows [N] (int64, on the device) of `pool`, which are keys or values with
// their scales.
void store_tokens(const at::Tensor& pool, const at::Tensor& scales, const at::Tensor& rows,
                  const at::Tensor& x);
// What such rows stand for: [N, G, d] in `type`.
at::Tensor rows_at(const at::Tensor& pool, const at::Tensor& scales, const at::Tensor& rows,
                   at::ScalarType type);

}  // namespace halo
