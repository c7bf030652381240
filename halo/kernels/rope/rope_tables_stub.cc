// Stands in for rope_tables.cu where there is no nvcc.
#include "halo/kernels/rope/rope_tables_launch.h"

namespace halo {

void launch_rope_tables(const int64_t*, int64_t, const double*, int64_t, float*, float*, void*) {
  no_cuda_kernels("rope_tables");
}
void launch_log_position_scale(const int64_t*, int64_t, double, float*, void*) {
  no_cuda_kernels("rope_tables");
}

}  // namespace halo
