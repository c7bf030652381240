// What a forward pass leaves for backward beside operations: a part of it that runs again, and a
// call on the way back.
//
// Activation checkpointing: a part of the forward pass that keeps its inputs alone and runs again
// in the backward pass (Chen et al. 2016, arXiv 1604.06174, with one segment a layer).
#pragma once

#include <ATen/core/Tensor.h>

#include <functional>
#include <vector>

namespace halo {

// A function of tensors that gives the same bits each time; its outputs are new tensors.
using Recomputed = std::function<std::vector<at::Tensor>(const std::vector<at::Tensor>& inputs)>;

// run(inputs), of whose intermediate results none is kept for backward. Gradients reach the inputs
// and, when `run` runs again, the weights that it uses. At least one input requires a gradient.
std::vector<at::Tensor> recompute(const Recomputed& run, const std::vector<at::Tensor>& inputs);

// The same tensors. In backward `call` is made once the gradients of all of them are known, before
// anything that led to them is run back. At least one requires a gradient.
std::vector<at::Tensor> on_the_way_back(const std::vector<at::Tensor>& tensors,
                                        const std::function<void()>& call);

}  // namespace halo
