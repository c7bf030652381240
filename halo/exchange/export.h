// A hybrid as a directory that Python's transformers loads (docs/formats/export.md).
#pragma once

#include <filesystem>
#include <string>

namespace halo {

// Writes `out`: the weights and side files of `model` byte for byte, its config.json with an
// auto_map, generation_config.json where there is none, the code of the model in Python, and `card`
// as README.md. A model that is no hybrid, or an `out` that is not empty, is an Error.
void export_model(const std::filesystem::path& model, const std::filesystem::path& out,
                  const std::string& card);

}  // namespace halo
