// A product of a decoding step with what stands before and after it in a layer, in one call:
//   z = x, normed, gated      y = z W^T + b,  or silu(z Wg^T) * (z Wu^T);  + residual
#pragma once

#include "halo/kernels/common/sequences.h"
#include "halo/kernels/common/weight.h"

namespace halo {

struct FusedLinear {
  Weight norm;     // [I]: RMSNorm of x; undefined: none
  double eps = 0;  // of the norm
  at::Tensor
      gate;     // [N, I], rows may lie apart: z is multiplied with sigmoid(gate); undefined: not
  Weight w;     // [O, I], may be int8; with swiglu [2 O, I]: Wg, then Wu
  Weight bias;  // [O], not with swiglu; undefined: none
  bool swiglu = false;
  at::Tensor residual;  // [N, O]; undefined: none
  bool wide = false;    // y in fp32, not in x's type
};

// x [N, I] -> y [N, O]. No gradients. On a GPU of compute capability 9.0 or later up to 4 rows in
// bf16 are one kernel (with w in int8 up to 16 are four), whose bits for a row do not depend on the
// others; else it is composed.
// kReference as in linear.h.
at::Tensor fused_linear(const at::Tensor& x, const FusedLinear& args, Kernels kernels);

}  // namespace halo
