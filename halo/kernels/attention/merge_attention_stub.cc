// Stands in for merge_attention.cu where there is no nvcc.
#include "halo/kernels/attention/merge_attention_launch.h"

namespace halo {

void launch_merge_attention(const MergeAttentionLaunch&, void*) {
  no_cuda_kernels("merge_attention");
}

}  // namespace halo
