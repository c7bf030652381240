// Stands in for norm_rows.cu where there is no nvcc.
#include "halo/kernels/rms_norm/rms_norm_launch.h"

namespace halo {

void launch_norm_rows(const NormRowsLaunch&, void*) {
  no_cuda_kernels("norm_rows");
}
void launch_norm_rows_backward(const NormRowsBackwardLaunch&, void*) {
  no_cuda_kernels("norm_rows");
}

}  // namespace halo
