// What the tests of CUDA kernels share: LibTorch's CUDA library, loaded as the program loads it,
// and the choice between our kernels and LibTorch's.
#pragma once

#include <dlfcn.h>
#include <gtest/gtest.h>

#include <cstdlib>
#include <optional>
#include <string>

#include "ATen/Context.h"
#include "ATen/detail/CUDAHooksInterface.h"
#include "halo/kernels/cuda/cuda_kernels.h"

namespace halo::test {

// The most rows that kernels are compared at, in tests named LongSequence.
inline constexpr int64_t kManyRows = 131'072;

inline bool has_gpu() {
  static const bool found = [] {
    if (!dlopen("libtorch_cuda.so", RTLD_NOW | RTLD_GLOBAL) || !at::hasCUDA() ||
        at::detail::getCUDAHooks().deviceCount() == 0)
      return false;
    at::globalContext().lazyInitDevice(c10::DeviceType::CUDA);
    return true;
  }();
  return found;
}

// While it lives, every operation on a GPU runs our kernels, proven or not ("all"), or none of
// them.
class CudaKernelsSetting {
 public:
  explicit CudaKernelsSetting(const char* which) {
    if (const char* before = getenv(kVariable)) before_ = before;
    setenv(kVariable, which, 1);
  }
  ~CudaKernelsSetting() {
    if (before_) {
      setenv(kVariable, before_->c_str(), 1);
    } else {
      unsetenv(kVariable);
    }
  }
  CudaKernelsSetting(const CudaKernelsSetting&) = delete;
  CudaKernelsSetting& operator=(const CudaKernelsSetting&) = delete;

 private:
  static constexpr const char* kVariable = "HALO_CUDA_KERNELS";
  std::optional<std::string> before_;
};

}  // namespace halo::test

// First in a test of kernels on a GPU. A test named ...Cuda may be skipped (tools/run-tests).
#define HALO_NEEDS_GPU()                                                             \
  if (!::halo::test::has_gpu()) GTEST_SKIP() << "there is no GPU here";              \
  {                                                                                  \
    const ::halo::test::CudaKernelsSetting all("all");                               \
    if (!::halo::runs_cuda_kernels(::halo::CudaKernels::kSwiglu))                    \
      GTEST_SKIP() << "this build has no CUDA kernels for a GPU: there was no nvcc"; \
  }                                                                                  \
  static_assert(true)
