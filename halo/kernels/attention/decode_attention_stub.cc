// Stands in for decode_attention.cu where there is no nvcc.
#include "halo/kernels/attention/decode_attention_launch.h"

namespace halo {

void launch_decode_attention(const DecodeAttentionLaunch&, void*) {
  no_cuda_kernels("decode_attention");
}
void launch_newest_rows(const NewestRowsLaunch&, void*) {
  no_cuda_kernels("decode_attention");
}

}  // namespace halo
