// What benches share: models whose weights do not matter, and the memory that a run took.
#pragma once

#include <filesystem>

#include "halo/model/decoder.h"
#include "halo/runtime/machine.h"

namespace halo {

// A config.json under any name.
ModelConfig read_config_file(const std::filesystem::path& path);

// Norms 1, matrices normal with standard deviation 0.02.
void randomise(ParameterStore& store);
Model random_model(const ModelConfig& config, ParameterStore::Use use, const Machine& machine,
                   const Sharing& sharing = {});

// The most so far. GPU: of tensors; CPU: resident.
int64_t peak_memory_bytes(const Machine& machine);

}  // namespace halo
