// Kernels that start while the one before them ends (programmatic dependent launch), and reads that
// pass by the first cache. Device code.
//
// A kernel launched by launch_overlapped calls wait_for_inputs() in every thread before it reads
// what the kernel right before it on the stream wrote, or writes anything; then it calls
// let_next_start(). So when it begins, every kernel but the one right before it has ended: it may
// read what those wrote at once.
#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>

#include "halo/kernels/cuda/launch.h"

namespace halo::cuda {

__device__ __forceinline__ void wait_for_inputs() {
#if __CUDA_ARCH__ >= 900
  asm volatile("griddepcontrol.wait;" ::: "memory");
#endif
}

__device__ __forceinline__ void let_next_start() {
#if __CUDA_ARCH__ >= 900
  asm volatile("griddepcontrol.launch_dependents;" ::: "memory");
#endif
}

// 16 bytes that are read once; the rest of their line is read soon. `load_constant`: of memory that
// nothing writes while the kernel lives.
__device__ __forceinline__ uint4 load_constant(const void* from) {
  uint4 x;
  asm volatile("ld.global.nc.L1::no_allocate.v4.u32 {%0,%1,%2,%3}, [%4];"
               : "=r"(x.x), "=r"(x.y), "=r"(x.z), "=r"(x.w)
               : "l"(from));
  return x;
}
__device__ __forceinline__ uint4 load_once(const void* from) {
  uint4 x;
  asm volatile("ld.global.L1::no_allocate.L2::128B.v4.u32 {%0,%1,%2,%3}, [%4];"
               : "=r"(x.x), "=r"(x.y), "=r"(x.z), "=r"(x.w)
               : "l"(from)
               : "memory");
  return x;
}

// Copies to shared memory that a thread waits for itself: of 16 or 8 bytes, aligned to them; all
// those since the last end_copies() are a group, and wait_for_copies() leaves the newest groups be.
template <int kBytes>
__device__ __forceinline__ void copy_once(void* to, const void* from) {
  const auto shared = static_cast<uint32_t>(__cvta_generic_to_shared(to));
  if constexpr (kBytes == 16) {
    asm volatile("cp.async.cg.shared.global.L2::128B [%0], [%1], 16;" ::"r"(shared), "l"(from)
                 : "memory");
  } else {
    static_assert(kBytes == 8);
    asm volatile("cp.async.ca.shared.global.L2::128B [%0], [%1], 8;" ::"r"(shared), "l"(from)
                 : "memory");
  }
}
__device__ __forceinline__ void end_copies() {
  asm volatile("cp.async.commit_group;" ::: "memory");
}
template <int kGroups>
__device__ __forceinline__ void wait_for_copies() {
  asm volatile("cp.async.wait_group %0;" ::"n"(kGroups) : "memory");
}

// kernel<<<grid, threads, bytes, stream>>>(parameters), which may start early on sm_90 and later.
template <class Parameters>
void launch_overlapped(void (*kernel)(Parameters), dim3 grid, int threads, int bytes, void* stream,
                       const Parameters& parameters) {
  int device = 0, major = 0;
  cudaGetDevice(&device);
  cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, device);
  cudaLaunchAttribute early{};
  early.id = cudaLaunchAttributeProgrammaticStreamSerialization;
  early.val.programmaticStreamSerializationAllowed = 1;
  cudaLaunchConfig_t config{};
  config.gridDim = grid;
  config.blockDim = dim3(threads);
  config.dynamicSmemBytes = bytes;
  config.stream = static_cast<cudaStream_t>(stream);
  config.attrs = &early;
  config.numAttrs = major >= 9 ? 1 : 0;
  void* arguments[] = {const_cast<Parameters*>(&parameters)};
  cudaLaunchKernelExC(&config, reinterpret_cast<const void*>(kernel), arguments);
}

// Multiprocessors of the current device.
inline int processors() {
  int device = 0, count = 0;
  cudaGetDevice(&device);
  cudaDeviceGetAttribute(&count, cudaDevAttrMultiProcessorCount, device);
  return count;
}

}  // namespace halo::cuda
