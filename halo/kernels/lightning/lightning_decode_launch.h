// The kernel of lightning_decode.cu; lightning_decode.h has the formula.
#pragma once

#include "halo/kernels/cuda/launch.h"

namespace halo {

inline constexpr int64_t kMostDecodeHeads = 128;

struct LightningDecodeLaunch {
  Element element = Element::kFloat;
  int64_t sequences = 0, tokens = 1;  // new tokens a sequence
  int64_t heads = 0, kv_heads = 0, head_dim = 0;
  float eps = 0, scale = 1;
  const void* stacked = nullptr;  // [sequences tokens, stride]: q, k, v, ..
  int64_t stride = 0;
  const void *q_norm = nullptr, *k_norm = nullptr;  // [head_dim]; null: no norm
  const float *cos = nullptr,
              *sin = nullptr;           // [sequences tokens, head_dim / 2]; null: no rotation
  const int64_t* slots = nullptr;       // [sequences]
  float* states = nullptr;              // [slots, heads, head_dim, head_dim]
  void* o = nullptr;                    // [sequences tokens, heads * head_dim]
  float losses[kMostDecodeHeads] = {};  // 1 - g of every head
};

// Head sizes 64 and 128; all pointers are aligned to 16 bytes.
void launch_lightning_decode(const LightningDecodeLaunch& args, void* stream);

}  // namespace halo
