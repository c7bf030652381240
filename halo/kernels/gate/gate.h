// A mixer's output before o_proj: optional RMSNorm over all heads, optional sigmoid gate
// (hypenet.md 1.1 step 5, 1.2 step 5).
#pragma once

#include "halo/kernels/common/weight.h"

namespace halo {

// y = rms_norm(o, norm, eps) * sigmoid(gate); o, gate [N, H*d], norm [H*d].
// norm.value undefined: no norm; gate undefined: no gate. One of the two must be there.
at::Tensor norm_gate(const at::Tensor& o, const Weight& norm, double eps, const at::Tensor& gate);

}  // namespace halo
