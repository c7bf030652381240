// What a model directory holds beside weights and configuration.
#pragma once

#include <filesystem>
#include <vector>

namespace halo {

// Those files of a model directory that copy_side_files (model_config.h) copies, in name order, as
// paths inside it ("tokenizer.json", "additional_chat_templates/rag.jinja").
std::vector<std::filesystem::path> side_files(const std::filesystem::path& directory);

}  // namespace halo
