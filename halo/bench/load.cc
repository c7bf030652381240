#include <sys/resource.h>

#include <chrono>
#include <filesystem>

#include "ATen/ATen.h"
#include "halo/bench/bench.h"
#include "halo/model/decoder.h"
#include "halo/runtime/machine.h"

namespace halo {
namespace {

namespace fs = std::filesystem;

double seconds_since(std::chrono::steady_clock::time_point start) {
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

int64_t weight_bytes(const fs::path& directory) {
  int64_t bytes = 0;
  for (const auto& entry : fs::directory_iterator(directory)) {
    if (entry.path().extension() == ".safetensors")
      bytes += static_cast<int64_t>(entry.file_size());
  }
  return bytes;
}

}  // namespace

json::object bench_load(const LoadBenchArgs& args) {
  at::NoGradGuard no_grad;
  const Machine machine = open_machine(args.machine);
  const auto start = std::chrono::steady_clock::now();
  const Model model =
      load_model(args.model, ParameterStore::Use::kFrozen, machine.compute, machine.device);
  const double loaded = seconds_since(start);
  double sum = 0;
  for (const ParameterSpec& spec : model.store->specs())
    sum += model.store->value(spec.name).sum().item<double>();
  const double seconds = seconds_since(start);
  rusage usage{};
  getrusage(RUSAGE_SELF, &usage);
  const int64_t bytes = weight_bytes(args.model), peak = usage.ru_maxrss * 1024;
  return {{"device", machine.device_name},
          {"bytes", bytes},
          {"seconds", seconds},
          {"sum_seconds", seconds - loaded},
          {"gigabytes_per_second", double(bytes) / seconds / 1e9},
          {"sum", sum},
          {"peak_resident_bytes", peak},
          {"peak_share", double(peak) / double(bytes)}};
}

}  // namespace halo
