// Stands in for split_heads.cu where there is no nvcc.
#include "halo/kernels/rope/rope_launch.h"

namespace halo {

void launch_split_heads(const SplitHeadsLaunch&, void*) {
  no_cuda_kernels("split_heads");
}

}  // namespace halo
