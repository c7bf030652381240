// Parameters as a safetensors file, by name, which ranks write together: one makes the file, then
// each writes what its store keeps, in any order.
#pragma once

#include <filesystem>
#include <vector>

#include "halo/model/parameters.h"
#include "halo/train/kept_values.h"

namespace halo {

struct ParameterFile {
  std::filesystem::path path;
  const std::vector<ParameterSpec>& parameters;  // in the order of the file
  DType dtype = DType::kF32;
};

uint64_t bytes_of(const ParameterFile& file);  // of its tensors

// With a header and of its full size, not synced.
void make_file(const ParameterFile& file);
// Writes of each parameter what `store` keeps, from `values`, whose type is the file's, and syncs.
// Those that are not the store's are taken from `rest`, a store on the CPU that has all of them in
// that type; none: another rank writes them.
void write_kept(const ParameterFile& file, const ParameterStore& store, const ReadKept& values,
                const ParameterStore* rest = nullptr);

// What the store keeps, from a file of all its parameters in fp32 into `arena`, laid out as
// master(). An Error where it is not of these parameters.
void load_kept(const std::filesystem::path& path, const ParameterStore& store,
               const at::Tensor& arena);

}  // namespace halo
