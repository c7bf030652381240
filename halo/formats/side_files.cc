// What a model directory holds beside weights and configuration.
#include <algorithm>
#include <array>
#include <string_view>

#include "halo/base/check.h"
#include "halo/base/files.h"
#include "halo/formats/model_config.h"

namespace halo {
namespace {

constexpr const char* kTemplates = "additional_chat_templates";

// The model card and Python code (config.json's auto_map) describe the model they came with; a file
// of weights in another form would be another model's too.
bool is_carried(std::string_view name) {
  constexpr std::array kOwnNames = {"config.json", "README.md"};
  constexpr std::array kWeightEndings = {".safetensors", ".safetensors.index.json",
                                         ".bin",         ".bin.index.json",
                                         ".pt",          ".pth",
                                         ".gguf",        ".py",
                                         ".tmp"};
  return std::none_of(kOwnNames.begin(), kOwnNames.end(),
                      [&](std::string_view own) { return name == own; }) &&
         std::none_of(kWeightEndings.begin(), kWeightEndings.end(),
                      [&](std::string_view ending) { return name.ends_with(ending); });
}

}  // namespace

void copy_side_files(const std::filesystem::path& from, const std::filesystem::path& to) {
  std::error_code error;
  std::filesystem::directory_iterator entries(from, error);
  if (error) throw_error("cannot read folder {}: {}", from.string(), error.message());
  std::filesystem::create_directories(to, error);
  if (error) throw_error("cannot create folder {}: {}", to.string(), error.message());
  if (std::filesystem::equivalent(from, to)) return;
  for (const auto& entry : entries) {
    // Links into a download cache count as the files they point to.
    if (!entry.is_regular_file() || !is_carried(entry.path().filename().string())) continue;
    copy_synced(entry.path(), to / entry.path().filename());
  }
  // The one folder that belongs to a model.
  if (std::filesystem::is_directory(from / kTemplates))
    copy_side_files(from / kTemplates, to / kTemplates);
}

}  // namespace halo
