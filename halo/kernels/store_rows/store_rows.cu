// Bound by memory: 16 bytes a thread, a row of the grid for each part of a row.
#include <cuda_runtime_api.h>

#include "halo/kernels/store_rows/store_rows_launch.h"

namespace halo {
namespace {

constexpr int kThreads = 128;

__global__ void __launch_bounds__(kThreads) store_rows(const StoreRowsLaunch p) {
  const int64_t units = p.row_bytes / kStoreUnit, row = blockIdx.x;
  const int64_t unit = int64_t{blockIdx.y} * kThreads + threadIdx.x;
  if (unit >= units) return;
  static_cast<uint4*>(p.pool)[p.rows[row] * units + unit] =
      static_cast<const uint4*>(p.x)[row * units + unit];
}

}  // namespace

void launch_store_rows(const StoreRowsLaunch& args, void* stream) {
  if (args.count == 0) return;
  const int64_t parts = (args.row_bytes / kStoreUnit + kThreads - 1) / kThreads;
  const dim3 grid(static_cast<unsigned>(args.count), static_cast<unsigned>(parts));
  store_rows<<<grid, kThreads, 0, static_cast<cudaStream_t>(stream)>>>(args);
  check_launch("store_rows");
}

}  // namespace halo
