// LibTorch's allocator must give the memory of recorded work to nobody else, which it does for its
// own graphs through virtual functions; calling those needs its header and no library.
#include "halo/runtime/graph.h"

#include <c10/core/StreamGuard.h>
#include <c10/core/impl/VirtualGuardImpl.h>
#include <c10/cuda/CUDACachingAllocator.h>
#include <cuda_runtime_api.h>

#include <atomic>
#include <utility>

#include "halo/base/check.h"

namespace halo {
namespace {

void check(cudaError_t status, const char* what) {
  if (status != cudaSuccess) {
    throw_error("CUDA graph: {} failed: {}; run.cuda_graphs = false does without", what,
                cudaGetErrorString(status));
  }
}

c10::cuda::CUDACachingAllocator::CUDAAllocator& allocator() {
  return static_cast<c10::cuda::CUDACachingAllocator::CUDAAllocator&>(
      *c10::getDeviceAllocator(at::kCUDA));
}

// Where everything is recorded: libraries keep a workspace for each stream that they meet, so it is
// one. A process has one device.
const c10::Stream& recording_stream(at::Device device) {
  static const c10::Stream stream =
      c10::impl::VirtualGuardImpl(device.type()).getStreamFromGlobalPool(device);
  return stream;
}

cudaStream_t handle_of(const c10::Stream& stream) {
  const c10::impl::VirtualGuardImpl devices(stream.device_type());
  return static_cast<cudaStream_t>(devices.getStreamNativeHandle(stream));
}

// What the stream is given between the constructor and take().
class Recording {
 public:
  explicit Recording(cudaStream_t stream) : stream_(stream) {
    // Of this thread: others, a loader's say, may go on using the device.
    check(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal), "to begin recording");
  }
  ~Recording() {
    if (!taken_) cudaStreamEndCapture(stream_, &graph_);
    if (graph_) cudaGraphDestroy(graph_);
    cudaGetLastError();
  }
  Recording(const Recording&) = delete;
  Recording& operator=(const Recording&) = delete;

  cudaGraphExec_t take() {
    taken_ = true;
    check(cudaStreamEndCapture(stream_, &graph_), "recording");
    cudaGraphExec_t out = nullptr;
    check(cudaGraphInstantiate(&out, graph_, 0), "to instantiate");
    return out;
  }

 private:
  cudaStream_t stream_;
  cudaGraph_t graph_ = nullptr;
  bool taken_ = false;
};

}  // namespace

GraphMemory::GraphMemory() {
  // LibTorch numbers its own pools from 1.
  static std::atomic<uint64_t> next{uint64_t{1} << 32};
  id_ = next++;
}

// The graph's use of a pool of LibTorch's allocator, from which comes what is allocated on the
// stream until end().
class CudaGraph::Allocations {
 public:
  Allocations(at::Device device, const GraphMemory& memory, cudaStream_t stream)
      : device_(device.index()), pool_{memory.id(), 0} {
    allocator().beginAllocateToPool(device_, pool_,
                                    [stream](cudaStream_t other) { return other == stream; });
  }
  ~Allocations() {
    end();
    allocator().releasePool(device_, pool_);
  }
  Allocations(const Allocations&) = delete;
  Allocations& operator=(const Allocations&) = delete;

  void end() {
    if (!std::exchange(ended_, true)) allocator().endAllocateToPool(device_, pool_);
  }

 private:
  const c10::DeviceIndex device_;
  const c10::MempoolId_t pool_;
  bool ended_ = false;
};

CudaGraph::CudaGraph(at::Device device, const GraphMemory& memory,
                     const std::function<void()>& work)
    : device_(device) {
  // The run in earnest left its memory with the allocator; the graph is to have it.
  allocator().emptyCache();
  const c10::StreamGuard guard(recording_stream(device));
  const cudaStream_t stream = handle_of(recording_stream(device));
  allocations_ = std::make_unique<Allocations>(device, memory, stream);
  Recording recording(stream);
  work();
  recorded_ = recording.take();
  allocations_->end();
}

CudaGraph::~CudaGraph() {
  cudaGraphExecDestroy(recorded_);
}

void CudaGraph::launch() const {
  const c10::Stream current = c10::impl::VirtualGuardImpl(device_.type()).getStream(device_);
  check(cudaGraphLaunch(recorded_, handle_of(current)), "to launch");
}

}  // namespace halo
