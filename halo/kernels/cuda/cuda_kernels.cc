// LibTorch's CUDA library is loaded at run time, so its stream is asked for through the device
// registry of c10, which needs no CUDA header. The CUDA runtime is a library of the CPU build too.
#include "halo/kernels/cuda/cuda_kernels.h"

#include <cuda_runtime_api.h>

#include <algorithm>
#include <array>
#include <cstdlib>
#include <string_view>

#include "c10/core/impl/DeviceGuardImplInterface.h"
#include "halo/base/check.h"

namespace halo {
namespace {

// The kernels that have passed their tests on a GPU. The others are off and stand in
// docs/gpu-status.md.
constexpr std::array kProven{
    CudaKernels::kRmsNorm,         CudaKernels::kSplitHeads,        CudaKernels::kNormGate,
    CudaKernels::kSwiglu,          CudaKernels::kEmbedding,         CudaKernels::kAdamW,
    CudaKernels::kLossRows,        CudaKernels::kLightning,         CudaKernels::kSquaredError,
    CudaKernels::kLightningDecode, CudaKernels::kRopeTables,        CudaKernels::kFusedLinear,
    CudaKernels::kFusedLinearInt8, CudaKernels::kDecodeAttention,   CudaKernels::kSample,
    CudaKernels::kStoreRows,       CudaKernels::kAttentionBackward, CudaKernels::kInt8Keys};

bool is_proven(CudaKernels kernels) {
  return std::find(kProven.begin(), kProven.end(), kernels) != kProven.end();
}

int64_t attribute_of(const at::Tensor& x, cudaDeviceAttr which) {
  int value = 0;
  const cudaError_t status = cudaDeviceGetAttribute(&value, which, x.device().index());
  HALO_CHECK(status == cudaSuccess, "cannot ask the GPU for its attributes: {}",
             cudaGetErrorString(status));
  return value;
}

}  // namespace

bool runs_cuda_kernels(CudaKernels kernels) {
  if (!HALO_HAS_NVCC) return false;
  const char* wanted = std::getenv("HALO_CUDA_KERNELS");
  if (!wanted) return is_proven(kernels);
  const std::string_view which = wanted;
  if (which == "all") return true;
  if (which == "none") return false;
  throw_error("HALO_CUDA_KERNELS is '{}'; it may be 'all' or 'none', or unset", which);
}

bool has_cuda_kernels(CudaKernels kernels, const at::Tensor& x) {
  return x.is_cuda() && (x.scalar_type() == at::kFloat || x.scalar_type() == at::kBFloat16) &&
         runs_cuda_kernels(kernels);
}

Element element_of(const at::Tensor& x) {
  HALO_CHECK(x.scalar_type() == at::kFloat || x.scalar_type() == at::kBFloat16,
             "CUDA kernels take fp32 and bf16, got {}", at::toString(x.scalar_type()));
  return x.scalar_type() == at::kFloat ? Element::kFloat : Element::kBFloat16;
}

int64_t num_processors(const at::Tensor& x) {
  return attribute_of(x, cudaDevAttrMultiProcessorCount);
}

int64_t compute_capability(const at::Tensor& x) {
  return attribute_of(x, cudaDevAttrComputeCapabilityMajor);
}

DeviceStream::DeviceStream(const at::Tensor& x) : guard_(x.device()) {
  const auto* device = c10::impl::getDeviceGuardImpl(x.device().type());
  handle_ = device->getStreamNativeHandle(device->getStream(x.device()));
}

void check_launch(const char* kernel) {
  const cudaError_t status = cudaGetLastError();
  if (status != cudaSuccess) {
    throw_error("{}: the kernel could not be launched: {}", kernel, cudaGetErrorString(status));
  }
}

void no_cuda_kernels(const char* launcher) {
  throw_error("{}: this halo was built without nvcc, so it has no CUDA kernels", launcher);
}

}  // namespace halo
