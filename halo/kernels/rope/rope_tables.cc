// Position-dependent factors, from float64 angles and logarithms.
#include <cmath>

#include "ATen/ATen.h"
#include "halo/base/check.h"
#include "halo/kernels/rope/rope.h"

namespace halo {

RopeTables rope_tables(const at::Tensor& positions, const at::Tensor& inv_freq) {
  HALO_CHECK(positions.dim() == 1 && inv_freq.dim() == 1 && inv_freq.scalar_type() == at::kDouble,
             "rope_tables: positions must be [N], frequencies [d/2] fp64");
  const at::Tensor angles = at::outer(positions.to(at::kDouble), inv_freq);
  return {angles.cos().to(at::kFloat), angles.sin().to(at::kFloat)};
}

at::Tensor log_position_scale(const at::Tensor& positions, double a) {
  HALO_CHECK(a > 1, "log_position_scale: a must be above 1, got {}", a);
  return positions.to(at::kDouble).add_(a).log_().div_(std::log(a)).to(at::kFloat);
}

}  // namespace halo
