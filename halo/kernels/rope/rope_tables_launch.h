// The kernels of rope_tables.cu; rope.h has the formulas.
#pragma once

#include "halo/kernels/cuda/launch.h"

namespace halo {

// cos, sin [count, pairs] of positions [count] times inv_freq [pairs].
void launch_rope_tables(const int64_t* positions, int64_t count, const double* inv_freq,
                        int64_t pairs, float* cos, float* sin, void* stream);

// scale [count] = ln(positions + a) / ln(a).
void launch_log_position_scale(const int64_t* positions, int64_t count, double a, float* scale,
                               void* stream);

}  // namespace halo
