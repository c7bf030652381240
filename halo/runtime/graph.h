// Work on a GPU, recorded once and launched as a whole (a CUDA graph): where kernels are short, the
// host's share of a launch, not the kernel, is what takes time (docs/decisions/cuda-graphs.md).
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <functional>
#include <memory>

struct CUgraphExec_st;

namespace halo {

// Memory of graphs that are launched one after another, and so may use the same.
class GraphMemory {
 public:
  GraphMemory();
  uint64_t id() const { return id_; }  // no other's, ever: libraries may keep some of the memory

 private:
  uint64_t id_;
};

class CudaGraph {
 public:
  // Records what `work` gives the device to do; nothing runs yet. `work` must have run in earnest
  // before, at the same shapes (libraries set themselves up when first used). It may not wait for
  // the device or copy from the host; what it reads and writes must be tensors that outlive this,
  // or be allocated in it. An Error of `work` passes through.
  CudaGraph(at::Device device, const GraphMemory& memory, const std::function<void()>& work);
  ~CudaGraph();
  CudaGraph(const CudaGraph&) = delete;
  CudaGraph& operator=(const CudaGraph&) = delete;

  // On the current stream. Tensors allocated in the work then have the values of this launch.
  void launch() const;

 private:
  class Allocations;
  at::Device device_;
  std::unique_ptr<Allocations> allocations_;
  CUgraphExec_st* recorded_ = nullptr;
};

}  // namespace halo
