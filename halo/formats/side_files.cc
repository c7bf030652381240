#include "halo/formats/side_files.h"

#include <algorithm>
#include <array>
#include <string_view>

#include "halo/base/check.h"
#include "halo/base/files.h"
#include "halo/formats/model_config.h"

namespace halo {
namespace {

const std::filesystem::path kTemplates = "additional_chat_templates";

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

std::vector<std::filesystem::path> side_files(const std::filesystem::path& directory) {
  std::error_code error;
  std::filesystem::directory_iterator entries(directory, error);
  if (error) throw_error("cannot read folder {}: {}", directory.string(), error.message());
  std::vector<std::filesystem::path> names;
  for (const auto& entry : entries) {
    // Links into a download cache count as the files they point to.
    const std::filesystem::path name = entry.path().filename();
    if (entry.is_regular_file() && is_carried(name.string())) names.push_back(name);
  }
  // The one folder that belongs to a model.
  if (std::filesystem::is_directory(directory / kTemplates)) {
    for (const auto& name : side_files(directory / kTemplates)) names.push_back(kTemplates / name);
  }
  std::ranges::sort(names);
  return names;
}

void copy_side_files(const std::filesystem::path& from, const std::filesystem::path& to) {
  const std::vector<std::filesystem::path> names = side_files(from);
  std::error_code error;
  std::filesystem::create_directories(to, error);
  if (error) throw_error("cannot create folder {}: {}", to.string(), error.message());
  if (std::filesystem::equivalent(from, to)) return;
  for (const auto& name : names) {
    std::filesystem::create_directories((to / name).parent_path());
    copy_synced(from / name, to / name);
  }
}

}  // namespace halo
