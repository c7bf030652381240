// The README.md of an exported model: what it is, how to use it, what was measured, where it came
// from.
#pragma once

#include <filesystem>
#include <string>

namespace halo {

struct ModelConfig;

// Markdown with the front matter of a Hugging Face model card. `run`: the run folder the model came
// from, whose summary.json and env.json give figures and provenance; empty: there is none, and the
// card says so.
std::string model_card(const std::string& title, const ModelConfig& config,
                       const std::filesystem::path& run);

}  // namespace halo
