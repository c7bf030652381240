// Stands in for sample.cu where there is no nvcc.
#include "halo/kernels/sample/sample_launch.h"

namespace halo {

void launch_sample(const SampleLaunch&, void*) {
  no_cuda_kernels("sample");
}

}  // namespace halo
