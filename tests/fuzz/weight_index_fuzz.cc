// Any text as model.safetensors.index.json: names of files of the same folder, or one Error.
#include "halo/base/check.h"
#include "halo/formats/safetensors.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  std::map<std::string, std::string> shards;
  try {
    shards = halo::parse_weight_index({reinterpret_cast<const char*>(data), size}, "fuzz");
  } catch (const halo::Error&) {
  }
  for (const auto& [name, shard] : shards)
    if (shard.find('/') != shard.npos || !shard.ends_with(".safetensors")) __builtin_trap();
  return 0;
}
