// The kernel of sample_rows.cu; README.md has the formula.
#pragma once

#include "halo/kernels/cuda/launch.h"

namespace halo {

struct SampleRowsLaunch {
  int64_t rows = 0, columns = 0;
  const float* logits = nullptr;                                             // [rows, columns]
  const float *temperature = nullptr, *top_p = nullptr, *min_p = nullptr;    // [rows]
  const int64_t *top_k = nullptr, *streams = nullptr, *positions = nullptr;  // streams: [rows, 2]
  int64_t* tokens = nullptr;                                                 // [rows]
  float* log_probabilities = nullptr;                                        // [rows]
};

void launch_sample_rows(const SampleRowsLaunch& args, void* stream);

}  // namespace halo
