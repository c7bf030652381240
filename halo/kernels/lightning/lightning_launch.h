// Passes of lightning attention on a GPU: what lightning.cu launches, and how the token axis is
// cut. docs/math/lightning.md derives both.
//   Y_t = g_h Y_{t-1} + k_t v_t^T,   o_t = scale * Y_t^T q_t,   g_h = exp(-slopes[h])
// The forward pass is one of these; the backward pass is three, two of them backward in time.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

namespace halo {

// Rows of a [N, H, D] tensor: row (t, h) begins at data + t * token_stride + (h / share) *
// head_stride.
struct LightningRows {
  const void* data = nullptr;  // 16-byte aligned; strides in elements, multiples of 16 bytes
  int64_t token_stride = 0, head_stride = 0;
  int32_t share = 1;  // heads that read one row (grouped key/value heads)
};

struct LightningPass {
  LightningRows q, k, v;
  void* o = nullptr;                // [N, H, D] contiguous
  const float* initial = nullptr;   // [S, H, k's D, v's D]; null: zero
  bool initial_transposed = false;  // initial is [S, H, v's D, k's D]
  float* final = nullptr;           // [S, H, k's D, v's D]; null: not wanted. Empty sequences: not
                                    // written.
};

// What the passes of one launch share.
struct LightningShape {
  int64_t tokens = 0, sequences = 0, max_length = 0;
  int64_t head_size = 0;             // D: 64 or 128
  const int32_t* offsets = nullptr;  // [S+1] on the device
  std::vector<double> slopes;        // H
  double scale = 1;
  // Token N-1 first. Then `initial` is the gradient of the state after each sequence, seen by its
  // last token undecayed and unscaled, and `final` the gradient of the state before it.
  bool reverse = false;
};

// The token axis cut into segments of `segment` tokens a head. What lies further than `warmup`
// tokens before a segment has decayed below 2^-bits, so blocks work on segments independently.
struct HeadSegments {
  int64_t segment = 0, warmup = 0;
};

// Segments of roughly equal cost, about `slots` of them over all heads; lengths are multiples
// of 64.
std::vector<HeadSegments> plan_segments(const LightningShape& shape, int64_t slots, int bits);

enum class LightningKernel {
  kWgmma,      // bf16, sm_90a: bulk tensor copies, wgmma
  kMma,        // bf16, sm_80 and later: cp.async, mma.sync
  kRecurrent,  // fp32, token by token
};

// Runs one pass, or two that read the same rows in the same order, on the stream (cudaStream_t).
void launch_lightning(std::span<const LightningPass> passes, const LightningShape& shape,
                      LightningKernel kernel, void* stream);

}  // namespace halo
