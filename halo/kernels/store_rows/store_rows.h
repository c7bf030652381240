// Rows of a pool overwritten in place: pool[rows[i]] = x[i]. LibTorch's index_copy_ does it too,
// but on a GPU by a dozen kernels that sort, so that rows named twice have one result.
#pragma once

#include <ATen/core/Tensor.h>

namespace halo {

// pool [R, ...] and x [n, ...] contiguous, of one type and one shape of rows; rows int64 [n] on
// their device, distinct and below R, which a GPU does not check. No gradient flows.
void store_rows(const at::Tensor& pool, const at::Tensor& rows, const at::Tensor& x);

}  // namespace halo
