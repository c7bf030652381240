// Memory of a pool of blocks or slots.
#pragma once

#include <ATen/core/Tensor.h>

namespace halo {

// Zeros, because a masked product with memory nobody wrote may be NaN. On a CPU they take memory
// page by page, as they are first written.
at::Tensor zero_pool(at::IntArrayRef shape, const at::TensorOptions& options);

}  // namespace halo
