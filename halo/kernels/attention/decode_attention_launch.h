// The kernel of decode_attention.cu; decode_attention.h has the formula.
#pragma once

#include "halo/kernels/cuda/launch.h"

namespace halo {

// Query rows that share a key head: heads of the group times new tokens.
inline constexpr int64_t kMostDecodeRows = 8;
inline constexpr int64_t kMostDecodeSequences = 1024;
// Ranges into which the sequences' tokens are cut at most; each leaves up to two parts.
inline constexpr int64_t kDecodeRanges = 512;
// What stands behind the head_dim sums of a part's row: maximum, sum, nothing.
inline constexpr int64_t kDecodePadding = 4;

struct DecodeAttentionLaunch {
  int64_t sequences = 0, tokens = 1;  // new tokens a sequence
  int64_t heads = 0, kv_heads = 0, head_dim = 0;
  int64_t block_size = 0, max_blocks = 0;
  float scale = 1;
  const void* q = nullptr;                        // [sequences tokens, heads, head_dim] bf16
  const void *keys = nullptr, *values = nullptr;  // [blocks, block_size, kv_heads, head_dim]: bf16,
  // or int8 with the scales of each token and head: [blocks, kv_heads, block_size]. Null: bf16.
  const float *key_scales = nullptr, *value_scales = nullptr;
  const int32_t* block_table = nullptr;  // [sequences, max_blocks]
  const int64_t* lengths = nullptr;      // [sequences]
  // [2 kDecodeRanges, kv_heads, rows, head_dim + kDecodePadding] and [sequences, kv_heads]
  float* parts = nullptr;
  int32_t* arrivals = nullptr;
  void* o = nullptr;  // [sequences tokens, heads, head_dim] bf16
};

// rows [sequences, tokens]: where the newest tokens are stored; -1 where lengths [sequences] is 0.
struct NewestRowsLaunch {
  int64_t sequences = 0, tokens = 0;
  int64_t block_size = 0, max_blocks = 0;
  const int32_t* block_table = nullptr;
  const int64_t* lengths = nullptr;
  int64_t* rows = nullptr;
};
void launch_newest_rows(const NewestRowsLaunch& args, void* stream);

// All pointers are aligned to 16 bytes.
void launch_decode_attention(const DecodeAttentionLaunch& args, void* stream);

}  // namespace halo
