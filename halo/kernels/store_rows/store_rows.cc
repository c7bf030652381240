#include "halo/kernels/store_rows/store_rows.h"

#include "ATen/ATen.h"
#include "halo/base/check.h"
#include "halo/kernels/cuda/cuda_kernels.h"
#include "halo/kernels/store_rows/store_rows_launch.h"

namespace halo {

void store_rows(const at::Tensor& pool, const at::Tensor& rows, const at::Tensor& x) {
  HALO_CHECK(pool.dim() > 1 && pool.dim() == x.dim() &&
                 pool.sizes().slice(1) == x.sizes().slice(1) &&
                 pool.scalar_type() == x.scalar_type() && pool.is_contiguous() && x.is_contiguous(),
             "store_rows: the pool and the rows for it must be contiguous, of one type and shape");
  HALO_CHECK(rows.dim() == 1 && rows.size(0) == x.size(0) && rows.scalar_type() == at::kLong,
             "store_rows: {} numbers of rows are expected, int64", x.size(0));
  const at::NoGradGuard no_grad;
  if (x.numel() == 0) return;
  const auto row_bytes = static_cast<int64_t>(x.nbytes()) / x.size(0);
  const auto is_aligned = [](const at::Tensor& t) {
    return reinterpret_cast<uintptr_t>(t.const_data_ptr()) % kStoreUnit == 0;
  };
  if (!x.is_cuda() || !runs_cuda_kernels(CudaKernels::kStoreRows) || row_bytes % kStoreUnit != 0 ||
      !is_aligned(pool) || !is_aligned(x)) {
    at::Tensor(pool).index_copy_(0, rows, x);
    return;
  }
  const at::Tensor places = rows.contiguous();
  const DeviceStream stream(x);
  launch_store_rows({.count = x.size(0),
                     .row_bytes = row_bytes,
                     .rows = places.const_data_ptr<int64_t>(),
                     .x = x.const_data_ptr(),
                     .pool = pool.mutable_data_ptr()},
                    stream.handle());
}

}  // namespace halo
