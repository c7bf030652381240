// Stands in for partial_sums.cu where there is no nvcc.
#include "halo/kernels/cuda/partial_sums.h"

namespace halo {

void launch_add_partial_sums(const float*, int64_t, int64_t, float*, void*) {
  no_cuda_kernels("partial_sums");
}

}  // namespace halo
