// The kernels of split_heads.cu; rope.h has the formula.
#pragma once

#include "halo/kernels/cuda/launch.h"

namespace halo {

// Whether the kernels take heads of this size: half a head is 8 elements for each of a power of two
// of lanes.
inline bool has_split_heads_kernel(int64_t head_dim) {
  const int64_t lanes = head_dim / 16;
  return head_dim % 16 == 0 && lanes >= 1 && lanes <= 32 && (lanes & (lanes - 1)) == 0;
}

struct SplitHeadsLaunch {
  Element element = Element::kFloat;
  int64_t rows = 0, heads = 0, kv_heads = 0, head_dim = 0;
  bool has_gate = false;
  float eps = 0;
  const void *q_norm = nullptr, *k_norm = nullptr;  // [head_dim]; null: no norm
  const float *cos = nullptr, *sin = nullptr;       // [rows, head_dim / 2]; null: no rotation
  const float* q_scale = nullptr;                   // [rows]; null: no scale
  const void* stacked = nullptr;                    // [rows, all heads * head_dim]

  // Forward: the results. Backward: their gradients, null where zero. [rows, (kv_)heads * head_dim]
  void *q = nullptr, *k = nullptr, *v = nullptr, *gate = nullptr;

  // Forward alone: k and v of row n are row kv_rows[n] of theirs, a negative one's are dropped, and
  // the gate may be null: it stays where it is. Null: row n.
  const int64_t* kv_rows = nullptr;
  // With those alone: k and v are int8, and the scales of blocks of so many rows go here,
  // [blocks, kv_heads, block_size]; null: they are of type `element`.
  float *k_scales = nullptr, *v_scales = nullptr;
  int64_t block_size = 0;

  // Backward alone: the gradient of stacked, and [partial_blocks(rows), head_dim] each for the
  // norms' gradients, null where not wanted.
  void* d_stacked = nullptr;
  float *partial_q = nullptr, *partial_k = nullptr;
};

// Forward, or backward where d_stacked is given. With kv_rows it may start early (overlap.cuh). All
// pointers are aligned to 16 bytes.
void launch_split_heads(const SplitHeadsLaunch& args, void* stream);

}  // namespace halo
