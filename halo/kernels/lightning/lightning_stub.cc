// Stands in for lightning.cu where there is no nvcc.
#include "halo/kernels/cuda/launch.h"
#include "halo/kernels/lightning/lightning_launch.h"

namespace halo {

LightningForm bf16_lightning_form() {
  no_cuda_kernels("lightning");
}

void launch_lightning(std::span<const LightningPass>, const LightningShape&, LightningForm, void*) {
  no_cuda_kernels("lightning");
}

}  // namespace halo
