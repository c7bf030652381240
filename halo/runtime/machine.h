// Where and how a command computes, from RunRecipe.
#pragma once

#include <ATen/core/Tensor.h>

#include "halo/kernels/common/sequences.h"
#include "halo/runtime/run_recipe.h"

namespace halo {

struct Machine {
  at::Device device = at::kCPU;
  at::ScalarType compute = at::kFloat;
  Kernels kernels = Kernels::kFast;
  bool deterministic = true;
  bool activation_checkpointing = false;
  bool cuda_graphs = true;
  std::string device_name;  // "AMD EPYC ..., 2 threads", "NVIDIA H100 ..."
};

// The type that products run in: as said, or that of the device.
at::ScalarType compute_type(const MachineRecipe& recipe);

// Sets the thread count and, for "cuda", loads LibTorch's CUDA library. An Error where the device
// is not there.
Machine open_machine(const MachineRecipe& recipe);
Machine open_machine(const RunRecipe& recipe);

// Rate of matrix products on this machine now, GFLOP/s, the best of a few square products: of
// normal numbers in machine.compute, on a CPU of fp32.
double measure_matrix_gflops(const Machine& machine);

}  // namespace halo
