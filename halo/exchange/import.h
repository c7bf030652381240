// halo import: models in other forms become plain Hugging Face directories.
#pragma once

#include <filesystem>
#include <optional>
#include <string>

#include "halo/base/json.h"
#include "halo/base/settings.h"
#include "halo/formats/safetensors.h"
#include "halo/stages/transfer.h"

namespace halo {

inline constexpr Word<std::optional<DType>> kImportTypes[] = {{"stored", std::nullopt},
                                                              {"float32", DType::kF32},
                                                              {"bfloat16", DType::kBF16},
                                                              {"float16", DType::kF16}};
inline constexpr Word<TransferInit> kGateInits[] = {
    {"identity", TransferInit::kIdentity}, {"random-gates", TransferInit::kRandom, "paper"}};

struct ImportArgs {
  // A GGUF file, or a directory: a plain model or a checkpoint of the authors' stage 1 or 2.
  std::filesystem::path source, out;
  // config.json of a checkpoint; empty: the one in its folder, else in the folder above.
  std::filesystem::path config;
  std::optional<DType> dtype;  // of the weights; none: as they are (GGUF: fp32)
  // The output gates that checkpoints of stage 1 lack: identity (o_gate 0, o_proj x 2) or
  // random (o_gate normal, std 0.02, of `seed`).
  TransferInit init = TransferInit::kIdentity;
  int64_t seed = 0;

  void settings(Settings& s) {
    s("dtype", dtype, kImportTypes, {.help = "of the weights; stored: float32 from GGUF"});
    s("init", init, kGateInits, {.help = "output gates that checkpoints of stage 1 lack"});
    s("seed", seed, {.help = "of --init random-gates", .max = kMaxCount});
  }
};

// Writes config.json, model.safetensors (tensors by name, as the reference writer orders them) and
// tokenizer files; weights are checked against the configuration as strictly as in loading.
// `out` is then whole or, after an error, as it was; one that holds something is an Error.
// Returns what was found and done: {"layout", "config", "tensors", "dropped", "output_gates"}.
json::object import_model(const ImportArgs& args);

}  // namespace halo
