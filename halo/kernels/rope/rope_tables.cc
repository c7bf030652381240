// Position-dependent factors, from float64 angles and logarithms.
#include <cmath>

#include "ATen/ATen.h"
#include "halo/base/check.h"
#include "halo/kernels/cuda/cuda_kernels.h"
#include "halo/kernels/rope/rope.h"
#include "halo/kernels/rope/rope_tables_launch.h"

namespace halo {
namespace {

bool has_kernel(const at::Tensor& positions) {
  return positions.is_cuda() && positions.is_contiguous() &&
         runs_cuda_kernels(CudaKernels::kRopeTables);
}

}  // namespace

RopeTables rope_tables(const at::Tensor& positions, const at::Tensor& inv_freq) {
  HALO_CHECK(positions.dim() == 1 && positions.scalar_type() == at::kLong && inv_freq.dim() == 1 &&
                 inv_freq.scalar_type() == at::kDouble,
             "rope_tables: positions must be int64 [N], frequencies fp64 [d/2]");
  if (has_kernel(positions)) {
    const DeviceStream stream(positions);
    const int64_t count = positions.size(0), pairs = inv_freq.size(0);
    const auto options = positions.options().dtype(at::kFloat);
    const RopeTables out{at::empty({count, pairs}, options), at::empty({count, pairs}, options)};
    launch_rope_tables(positions.const_data_ptr<int64_t>(), count,
                       inv_freq.contiguous().const_data_ptr<double>(), pairs,
                       out.cos.mutable_data_ptr<float>(), out.sin.mutable_data_ptr<float>(),
                       stream.handle());
    return out;
  }
  const at::Tensor angles = at::outer(positions.to(at::kDouble), inv_freq);
  return {angles.cos().to(at::kFloat), angles.sin().to(at::kFloat)};
}

at::Tensor log_position_scale(const at::Tensor& positions, double a) {
  HALO_CHECK(a > 1, "log_position_scale: a must be above 1, got {}", a);
  if (has_kernel(positions)) {
    const DeviceStream stream(positions);
    const at::Tensor scale = at::empty(positions.sizes(), positions.options().dtype(at::kFloat));
    launch_log_position_scale(positions.const_data_ptr<int64_t>(), positions.numel(), a,
                              scale.mutable_data_ptr<float>(), stream.handle());
    return scale;
  }
  return positions.to(at::kDouble).add_(a).log_().div_(std::log(a)).to(at::kFloat);
}

}  // namespace halo
