// The kernel of sample.cu; README.md has the rule.
#pragma once

#include "halo/kernels/cuda/launch.h"

namespace halo {

// Sums of this many masses fit 63 bits.
inline constexpr int64_t kMostSampledTokens = int64_t{1} << 18;

// What a row's token depends on beside its logits.
struct SampleSettings {
  double temperature = 0;  // 0: greedy
  double top_p = 1, min_p = 0;
  double uniform = 0;  // a multiple of 2^-24 in [0, 1)
  int64_t top_k = 0;   // 0: all
};

struct SampleLaunch {
  const float* logits = nullptr;  // [rows, vocabulary]
  int64_t rows = 0, vocabulary = 0;
  const SampleSettings* settings = nullptr;  // [rows], on the device
  int64_t* tokens = nullptr;                 // [rows]
};

void launch_sample(const SampleLaunch& args, void* stream);

}  // namespace halo
