// Stands in for lightning.cu where there is no nvcc.
#include "halo/kernels/cuda/launch.h"
#include "halo/kernels/lightning/lightning_launch.h"

namespace halo {

void launch_lightning(std::span<const LightningPass>, const LightningShape&, LightningKernel,
                      void*) {
  no_cuda_kernels("lightning");
}

}  // namespace halo
