// Which operations run as kernels of our own on a GPU, and the stream that they run on.
#pragma once

#include <ATen/core/Tensor.h>
#include <c10/core/DeviceGuard.h>

#include <cstdint>

#include "halo/kernels/cuda/launch.h"

namespace halo {

// One for each operation's kernels; cuda_kernels.cc lists those that have passed on a GPU.
enum class CudaKernels {
  kRmsNorm,
  kSplitHeads,
  kNormGate,
  kSwiglu,
  kEmbedding,
  kAdamW,
  kLossRows,
  kLightning,
  kSquaredError,
  kFusedLinear,
  kFusedLinearInt8,
  kDecodeAttention,
  kAttentionBackward,  // of training, in a fixed order of sums: cuDNN's
  kInt8Keys,           // decode_attention and split_heads where keys and values are int8
  kLightningDecode,
  kRopeTables,
  kSample,
  kStoreRows,
};

// Whether the operation's kernels are to run: this build has them, and they have passed on a GPU.
// The environment variable HALO_CUDA_KERNELS overrules the latter, for tests and measurements:
// "all" runs unproven kernels too, "none" leaves everything to LibTorch.
bool runs_cuda_kernels(CudaKernels kernels);

// The same for a call on x: a CUDA tensor, fp32 or bf16.
bool has_cuda_kernels(CudaKernels kernels, const at::Tensor& x);

Element element_of(const at::Tensor& x);

// Of a CUDA tensor's device: streaming multiprocessors, and the major part of its compute
// capability (9: Hopper).
int64_t num_processors(const at::Tensor& x);
int64_t compute_capability(const at::Tensor& x);

// The current stream of x's device, which is the current device while this lives.
class DeviceStream {
 public:
  explicit DeviceStream(const at::Tensor& x);
  void* handle() const { return handle_; }

 private:
  c10::DeviceGuard guard_;
  void* handle_;
};

}  // namespace halo
