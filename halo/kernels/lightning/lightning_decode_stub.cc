// Stands in for lightning_decode.cu where there is no nvcc.
#include "halo/kernels/lightning/lightning_decode_launch.h"

namespace halo {

void launch_lightning_decode(const LightningDecodeLaunch&, void*) {
  no_cuda_kernels("lightning_decode");
}

}  // namespace halo
