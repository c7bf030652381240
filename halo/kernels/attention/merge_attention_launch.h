// The kernel of merge_attention.cu; merge_attention.h has the formula.
#pragma once

#include "halo/kernels/cuda/launch.h"

namespace halo {

inline constexpr int64_t kMostMergedParts = 8;

struct MergeAttentionLaunch {
  Element element = Element::kFloat;             // of the parts
  int64_t rows = 0, heads = 0, columns = 0;      // n, H, d: a multiple of 8; rows * heads is a row
  int64_t parts = 0;                             // at most kMostMergedParts
  const void* o[kMostMergedParts] = {};          // [n, H, d]
  const float* log_sums[kMostMergedParts] = {};  // [H, n]
  int64_t strides[kMostMergedParts] = {};        // between the heads of log_sums
  // What was merged before, comes first and is overwritten where there is no `out`: [n, H, d], and
  // [H, n]. `has_sum`: there is such a thing already.
  bool has_sum = false;
  float *sum = nullptr, *sum_log_sums = nullptr;
  void* out = nullptr;  // [n, H, d], of the parts' type; null: to `sum`
};

// All rows are aligned to 16 bytes.
void launch_merge_attention(const MergeAttentionLaunch& args, void* stream);

}  // namespace halo
