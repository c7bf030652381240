// Stands in for embedding.cu where there is no nvcc.
#include "halo/kernels/embedding/embedding_launch.h"

namespace halo {

void launch_embedding_gradient(const EmbeddingLaunch&, void*) {
  no_cuda_kernels("embedding");
}

}  // namespace halo
