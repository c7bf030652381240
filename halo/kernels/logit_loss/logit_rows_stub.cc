// Stands in for logit_rows.cu where there is no nvcc.
#include "halo/kernels/logit_loss/logit_rows_launch.h"

namespace halo {

void launch_cross_entropy_rows(const CrossEntropyRowsLaunch&, void*) {
  no_cuda_kernels("cross_entropy_rows");
}
void launch_kl_rows(const KlRowsLaunch&, void*) {
  no_cuda_kernels("kl_rows");
}

}  // namespace halo
