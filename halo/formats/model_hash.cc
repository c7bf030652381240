#include "halo/formats/model_hash.h"

#include <span>

#include "halo/base/files.h"
#include "halo/formats/safetensors.h"

namespace halo {

std::string model_hash(const std::filesystem::path& directory) {
  std::string all = hash_file(directory / "config.json");
  for (const auto& path : WeightFiles(directory).paths()) all += hash_file(path);
  return hash_hex(std::as_bytes(std::span(all)));
}

}  // namespace halo
