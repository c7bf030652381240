// An arena of a ParameterStore as a safetensors file, fp32, by parameter name: whole, or each rank
// its range of it.
#pragma once

#include <filesystem>

#include "halo/model/parameters.h"

namespace halo {

// `arena`: master or a moment of a store that owns all.
void write_arena(const std::filesystem::path& path, ParameterStore& store, const at::Tensor& arena);

// The same by several processes or threads: one makes the file, then each writes what its store
// owns, in any order, and syncs it.
void make_arena_file(const std::filesystem::path& path, const ParameterStore& store);
void write_owned(const std::filesystem::path& path, const ParameterStore& store,
                 const at::Tensor& arena);

// What the store owns, from the file of a whole arena. An Error where it is not of these
// parameters.
void load_owned(const std::filesystem::path& path, const ParameterStore& store,
                const at::Tensor& arena);

}  // namespace halo
