#include "halo/runtime/machine.h"

#include <cuda_runtime_api.h>
#include <dlfcn.h>

#include <chrono>
#include <fstream>

#include "ATen/ATen.h"
#include "ATen/Parallel.h"
#include "ATen/detail/CUDAHooksInterface.h"
#include "halo/base/check.h"

namespace halo {
namespace {

// Autograd runs backward on a thread of its own, which has no CUDA context before its first kernel;
// where that is one of cuBLAS, LibTorch warns of it.
void warm_up_autograd() {
  const at::AutoGradMode with_gradients(true);
  at::zeros({1}, at::TensorOptions().device(at::kCUDA)).requires_grad_(true).mul(2).backward();
}

// LibTorch's CUDA backend registers itself when its library is loaded; until then at:: knows the
// CPU alone. So one program serves machines with and without a GPU.
void load_cuda() {
  if (!dlopen("libtorch_cuda.so", RTLD_NOW | RTLD_GLOBAL)) {
    throw_error(
        "run.device = 'cuda': LibTorch's CUDA library cannot be loaded ({}); put torch/lib of "
        "a CUDA build of LibTorch 2.11 on LD_LIBRARY_PATH, or use run.device = 'cpu'",
        dlerror());
  }
  if (!at::hasCUDA() || at::detail::getCUDAHooks().deviceCount() == 0) {
    throw_error("run.device = 'cuda': no CUDA device is visible here; use run.device = 'cpu'");
  }
  at::globalContext().lazyInitDevice(c10::DeviceType::CUDA);
  warm_up_autograd();
  // The default mode is reproducible: no TF32 in fp32 products. LibTorch gives cuBLAS a workspace
  // of one size by itself; where CUBLAS_WORKSPACE_CONFIG says which, it takes that apart with a
  // regular expression in every product, for longer than the product's launch takes.
  at::globalContext().setAllowBF16ReductionCuBLAS(false);  // sums of bf16 products stay fp32
}

std::string cpu_name() {
  std::ifstream file("/proc/cpuinfo");
  for (std::string line; std::getline(file, line);) {
    if (line.rfind("model name", 0) == 0) return line.substr(line.find(':') + 2);
  }
  return "unknown CPU";
}

// "NVIDIA H200", or "cuda:0" where the driver does not say.
std::string gpu_name(int index) {
  cudaDeviceProp properties;
  if (cudaGetDeviceProperties(&properties, index) != cudaSuccess) {
    cudaGetLastError();  // it is no later call's error
    return fmt::format("cuda:{}", index);
  }
  return properties.name;
}

}  // namespace

at::ScalarType compute_type(const MachineRecipe& recipe) {
  return recipe.compute.value_or(recipe.device == at::kCUDA ? at::kBFloat16 : at::kFloat);
}

Machine open_machine(const MachineRecipe& recipe) {
  Machine m;
  m.compute = compute_type(recipe);
  m.kernels = recipe.kernels;
  m.deterministic = recipe.deterministic;
  if (recipe.threads > 0) at::set_num_threads(static_cast<int>(recipe.threads));
  if (recipe.device == at::kCUDA) {
    if (m.kernels == Kernels::kReference) {
      throw_error("run.kernels = 'reference' runs on the CPU only; set run.device = 'cpu'");
    }
    load_cuda();
    // For LibTorch's own operations; ours are told (AttentionSettings).
    at::globalContext().setDeterministicAlgorithms(recipe.deterministic, /*warn_only=*/true);
    at::globalContext().setDeterministicFillUninitializedMemory(false);
    m.device = at::Device(at::kCUDA, 0);
    m.device_name = gpu_name(m.device.index());
  } else {
    m.device_name = fmt::format("{}, {} threads", cpu_name(), at::get_num_threads());
  }
  return m;
}

Machine open_machine(const RunRecipe& recipe) {
  Machine m = open_machine(static_cast<const MachineRecipe&>(recipe));
  m.activation_checkpointing = recipe.activation_checkpointing;
  m.cuda_graphs = recipe.cuda_graphs;
  return m;
}

double measure_matrix_gflops(const Machine& machine) {
  at::NoGradGuard no_grad;
  const int64_t n = machine.device.is_cuda() ? 8192 : 1024;
  const at::ScalarType type = machine.device.is_cuda() ? machine.compute : at::kFloat;
  const at::Tensor a = at::randn({n, n}, at::TensorOptions().device(machine.device)).to(type);
  at::Tensor c = a.mm(a);
  double best = 0;
  for (int repeat = 0; repeat < 7; ++repeat) {
    const auto start = std::chrono::steady_clock::now();
    at::mm_out(c, a, a);
    c[0][0].item<float>();  // waits for the device
    const std::chrono::duration<double> time = std::chrono::steady_clock::now() - start;
    best = std::max(best, 2e-9 * double(n) * double(n) * double(n) / time.count());
  }
  return best;
}

}  // namespace halo
