// Stands in for swiglu.cu where there is no nvcc.
#include "halo/kernels/swiglu/swiglu_launch.h"

namespace halo {

void launch_swiglu(const SwigluLaunch&, void*) {
  no_cuda_kernels("swiglu");
}

}  // namespace halo
