// Any text as config.json: a configuration that reads back equal from what is written, or one
// Error.
#include "halo/base/check.h"
#include "halo/formats/model_config.h"

namespace {

// Frequencies are finite whatever the scaling; large heads only take time.
void use(const halo::ModelConfig& config) {
  if (halo::parse_model_config(halo::model_config_to_json(config), "written") != config)
    __builtin_trap();
  if (config.head_dim > 1024) return;
  for (const double frequency : halo::rope_frequencies(config, config.head_dim))
    if (!(frequency >= 0)) __builtin_trap();
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  halo::ModelConfig config;
  try {
    const halo::json::value value =
        halo::parse_json({reinterpret_cast<const char*>(data), size}, "fuzz");
    if (!value.is_object()) return 0;
    config = halo::parse_model_config(value.get_object(), "fuzz");
  } catch (const halo::Error&) {
    return 0;
  }
  use(config);  // what was accepted must work
  return 0;
}
