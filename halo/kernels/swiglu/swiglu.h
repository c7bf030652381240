// SwiGLU's elementwise part: silu(gate) * up.
#pragma once

#include <ATen/core/Tensor.h>

namespace halo {

// gate_up [N, 2F]: gate in the first F columns, up in the last F -> [N, F].
at::Tensor swiglu(const at::Tensor& gate_up);

}  // namespace halo
