#include "halo/bench/random_model.h"

#include <sys/resource.h>

#include <cmath>

#include "ATen/ATen.h"
#include "c10/core/CachingDeviceAllocator.h"
#include "halo/base/check.h"
#include "halo/base/json.h"

namespace halo {

ModelConfig read_config_file(const std::filesystem::path& path) {
  const json::value value = read_json(path);
  if (!value.is_object()) throw_error("{}: not a JSON object", path.string());
  return parse_model_config(value.get_object(), path.string());
}

void randomise(ParameterStore& store) {
  at::NoGradGuard no_grad;
  for (const ParameterSpec& spec : store.specs()) {
    if (spec.int8) {
      // Even over -127 .. 127, whose standard deviation is 127 / sqrt(3).
      store.value(spec.name).random_(-127, 128);
      store.scale(spec.name).fill_(0.02 * std::sqrt(3.0) / 127);
      continue;
    }
    const bool is_trained = store.use() == ParameterStore::Use::kTrained;
    const auto options = at::TensorOptions().device(store.device());
    const at::Tensor value =
        at::ones(spec.shape, options.dtype(is_trained ? at::kFloat : store.compute_type()));
    if (spec.shape.size() > 1) value.normal_(0, 0.02);
    store.write(spec.name, value);
  }
}

Model random_model(const ModelConfig& config, ParameterStore::Use use, const Machine& machine,
                   const Sharing& sharing) {
  auto store = std::make_shared<ParameterStore>(decoder_parameters(config), use, machine.compute,
                                                machine.device, sharing);
  randomise(*store);
  return {config, store, bind_decoder(config, *store)};
}

int64_t peak_memory_bytes(const Machine& machine) {
  if (machine.device.is_cuda()) {
    const auto stats = c10::getDeviceAllocator(at::kCUDA)->getDeviceStats(machine.device.index());
    return stats.allocated_bytes[0].peak;
  }
  rusage usage{};
  getrusage(RUSAGE_SELF, &usage);
  return usage.ru_maxrss * 1024;
}

}  // namespace halo
