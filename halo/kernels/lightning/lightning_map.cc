// The driver's encoder of tensor maps, found through the runtime: nothing is linked to the driver.
#include "halo/kernels/lightning/lightning_map.h"

#include <cuda_runtime_api.h>

#include "halo/base/check.h"

namespace halo::lightning {
namespace {

decltype(&cuTensorMapEncodeTiled) find_encoder() {
  void* function = nullptr;
  cudaDriverEntryPointQueryResult found = cudaDriverEntryPointSymbolNotFound;
  cudaGetDriverEntryPointByVersion("cuTensorMapEncodeTiled", &function, 12000, cudaEnableDefault,
                                   &found);
  if (found != cudaDriverEntryPointSuccess) {
    throw_error("lightning: the CUDA driver is older than 12.0: it cannot encode tensor maps");
  }
  return reinterpret_cast<decltype(&cuTensorMapEncodeTiled)>(function);
}

}  // namespace

CUtensorMap make_row_map(const LightningRows& rows, int64_t tokens, int64_t heads,
                         int64_t head_size, int box_tokens) {
  static const auto encode = find_encoder();
  const auto as_size = [](int64_t size) { return static_cast<cuuint64_t>(size); };
  const cuuint64_t sizes[] = {as_size(head_size), as_size(heads / rows.share), as_size(tokens)};
  const cuuint64_t strides[] = {as_size(rows.head_stride * 2), as_size(rows.token_stride * 2)};
  const cuuint32_t box[] = {64, 1, static_cast<cuuint32_t>(box_tokens)}, every[] = {1, 1, 1};
  // The cache fetches a row and no more: the next one is another head's, another block's.
  const auto fetch =
      head_size == 64 ? CU_TENSOR_MAP_L2_PROMOTION_L2_128B : CU_TENSOR_MAP_L2_PROMOTION_L2_256B;
  CUtensorMap map;
  const CUresult status =
      encode(&map, CU_TENSOR_MAP_DATA_TYPE_BFLOAT16, 3, const_cast<void*>(rows.data), sizes,
             strides, box, every, CU_TENSOR_MAP_INTERLEAVE_NONE, CU_TENSOR_MAP_SWIZZLE_128B, fetch,
             CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE);
  HALO_CHECK(status == CUDA_SUCCESS,
             "lightning: rows of {} bf16, {} and {} elements apart, cannot be mapped (error {})",
             head_size, rows.head_stride, rows.token_stride, static_cast<int>(status));
  return map;
}

}  // namespace halo::lightning
