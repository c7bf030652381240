// An arena of a ParameterStore as a safetensors file, fp32, by parameter name: whole, or each rank
// its parts of it.
#pragma once

#include <filesystem>

#include "halo/model/parameters.h"

namespace halo {

// `arena`: master or a moment of a store that keeps all.
void write_arena(const std::filesystem::path& path, ParameterStore& store, const at::Tensor& arena);

// The same by several processes or threads: one makes the file, then each writes what its store
// keeps, in any order, and syncs it.
void make_arena_file(const std::filesystem::path& path, const ParameterStore& store);
void write_kept(const std::filesystem::path& path, const ParameterStore& store,
                const at::Tensor& arena);

// What the store keeps, from the file of a whole arena. An Error where it is not of these
// parameters.
void load_kept(const std::filesystem::path& path, const ParameterStore& store,
               const at::Tensor& arena);

}  // namespace halo
