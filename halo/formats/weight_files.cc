// The tensors of a model directory, in one file or in shards.
#include <algorithm>
#include <set>

#include "halo/base/check.h"
#include "halo/base/json.h"
#include "halo/base/text.h"
#include "halo/formats/weight_names.h"

namespace halo {
namespace {

constexpr const char* kSingleFile = "model.safetensors";
constexpr const char* kIndexFile = "model.safetensors.index.json";
constexpr uint64_t kMaxIndexBytes = 100'000'000;  // as of a safetensors header

}  // namespace

std::map<std::string, std::string> parse_weight_index(std::string_view text,
                                                      const std::string& file) {
  const json::value index = parse_json(text, file);
  if (!index.is_object()) throw_error("{}: expected an object", file);
  std::map<std::string, std::string> shards;
  for (const auto& [key, value] : json_get<json::object>(index.get_object(), "weight_map", file)) {
    const std::string name(key);
    if (!value.is_string()) throw_error("{}: weight_map names no file for tensor '{}'", file, name);
    const std::string shard(value.get_string());
    if (!shard.ends_with(".safetensors") || shard.find_first_of("/\\") != std::string::npos)
      throw_error(
          "{}: weight_map names '{}' for tensor '{}'; expected a .safetensors file of the "
          "same folder",
          file, shard, name);
    shards.emplace(name, shard);
  }
  return shards;
}

bool WeightFiles::are_in(const std::filesystem::path& directory) {
  return std::filesystem::exists(directory / kSingleFile) ||
         std::filesystem::exists(directory / kIndexFile);
}

WeightFiles::WeightFiles(const std::filesystem::path& directory) {
  if (!are_in(directory))
    throw_error("{} holds no weights: neither {} nor {} is there", directory.string(), kSingleFile,
                kIndexFile);
  if (std::filesystem::exists(directory / kSingleFile)) {
    files_.push_back(std::make_unique<SafetensorsFile>(directory / kSingleFile));
  } else {
    read_shards(directory);
  }
  for (const auto& file : files_)
    for (TensorView tensor : file->tensors()) {
      tensor.name = full_tensor_name(tensor.name);
      tensors_.push_back(std::move(tensor));
    }
  std::ranges::sort(tensors_, {}, &TensorView::name);
  const auto twice = std::ranges::adjacent_find(tensors_, {}, &TensorView::name);
  if (twice != tensors_.end())
    throw_error("{}: tensor '{}' is there with and without 'model.' in front", directory.string(),
                twice->name);
}

void WeightFiles::read_shards(const std::filesystem::path& directory) {
  const std::filesystem::path index = directory / kIndexFile;
  const auto weight_map = parse_weight_index(read_text_file(index, kMaxIndexBytes), index.string());
  index_ = index;
  std::set<std::string> shards;
  for (const auto& [name, shard] : weight_map) shards.insert(shard);
  for (const std::string& shard : shards)
    files_.push_back(std::make_unique<SafetensorsFile>(directory / shard));

  size_t found = 0;
  for (const auto& file : files_) {
    const std::string shard = file->path().filename().string();
    for (const TensorView& tensor : file->tensors()) {
      const auto entry = weight_map.find(tensor.name);
      if (entry == weight_map.end())
        throw_error("{}: tensor '{}' of {} is not listed", index.string(), tensor.name, shard);
      if (entry->second != shard)
        throw_error("{}: tensor '{}' is listed in {} but also found in {}", index.string(),
                    tensor.name, entry->second, shard);
      ++found;
    }
  }
  if (found == weight_map.size()) return;
  for (const auto& [name, shard] : weight_map) {
    const auto holds = [&tensor = name](const auto& file) { return file->find(tensor) != nullptr; };
    if (std::ranges::none_of(files_, holds))
      throw_error("{}: tensor '{}' is listed in {} but not found there", index.string(), name,
                  shard);
  }
}

const TensorView* WeightFiles::find(std::string_view name) const {
  const auto found = std::ranges::lower_bound(tensors_, name, {}, &TensorView::name);
  return found == tensors_.end() || found->name != name ? nullptr : &*found;
}

void WeightFiles::allow_private_writes() {
  for (const auto& file : files_) file->allow_private_writes();
}

std::vector<std::filesystem::path> WeightFiles::paths() const {
  std::vector<std::filesystem::path> all;
  for (const auto& file : files_) all.push_back(file->path());
  if (!index_.empty()) all.push_back(index_);
  return all;
}

}  // namespace halo
