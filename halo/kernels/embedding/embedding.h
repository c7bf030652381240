// Rows of the embedding table.
#pragma once

#include "halo/kernels/common/weight.h"

namespace halo {

// ids [N] int64 in [0, V) (checked on the CPU; an id out of range is an Error), table.value [V, D]
// -> [N, D]. Backward: table.grad[ids[n]] += dy[n], in token order.
at::Tensor embedding(const at::Tensor& ids, const Weight& table);

}  // namespace halo
