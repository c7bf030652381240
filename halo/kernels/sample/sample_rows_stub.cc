// Stands in for sample_rows.cu where there is no nvcc.
#include "halo/kernels/sample/sample_rows_launch.h"

namespace halo {

void launch_sample_rows(const SampleRowsLaunch&, void*) {
  no_cuda_kernels("sample_rows");
}

}  // namespace halo
