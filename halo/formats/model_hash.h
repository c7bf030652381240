// What tells a model directory from any other.
#pragma once

#include <filesystem>
#include <string>

namespace halo {

// Of configuration and weights; reads all of them.
std::string model_hash(const std::filesystem::path& directory);

}  // namespace halo
