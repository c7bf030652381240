// Work on a GPU that is repeated at a few shapes: run once in earnest, recorded the second time,
// launched as a whole from then on (docs/decisions/cuda-graphs.md).
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <utility>

#include "halo/runtime/graph.h"

namespace halo {

// `Shape` is ordered; two calls with equal shapes differ in the values of their inputs alone.
template <class Shape, class Inputs>
class GraphCache {
 public:
  // `work` reads the inputs and returns new tensors; what it may do, CudaGraph says. `overwrite`
  // copies the values of its second argument into the tensors of the first.
  GraphCache(at::Device device, std::function<at::Tensor(const Inputs&)> work,
             std::function<void(const Inputs&, const Inputs&)> overwrite)
      : device_(device), work_(std::move(work)), overwrite_(std::move(overwrite)) {}

  // What `work` returns for `inputs`, the same kernels on the same values either way.
  at::Tensor run(const Shape& shape, const Inputs& inputs) {
    const auto [at, is_new] = entries_.try_emplace(shape, Entry{.inputs = inputs});
    if (is_new) return work_(inputs);
    Entry& entry = at->second;
    overwrite_(entry.inputs, inputs);
    if (!entry.graph) {
      entry.graph = std::make_unique<CudaGraph>(device_, memory_,
                                                [&] { entry.result = work_(entry.inputs); });
    }
    entry.graph->launch();
    return entry.result.clone();
  }

 private:
  struct Entry {
    Inputs inputs;  // the graph's: those of every call of this shape are copied into them
    at::Tensor result;
    std::unique_ptr<CudaGraph> graph;
  };

  const at::Device device_;
  const std::function<at::Tensor(const Inputs&)> work_;
  const std::function<void(const Inputs&, const Inputs&)> overwrite_;
  GraphMemory memory_;
  std::map<Shape, Entry> entries_;
};

}  // namespace halo
