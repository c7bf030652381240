// Models in several files, as llama.cpp's gguf-split leaves them.
#include <set>

#include "halo/base/check.h"
#include "halo/formats/gguf.h"

namespace halo {
namespace {

constexpr const char* kNumber = "split.no";  // from 0
constexpr const char* kCount = "split.count";
constexpr const char* kNumTensors = "split.tensors.count";

// A whole number of the metadata; `fallback` where it is not there.
int64_t number_or(const Gguf& contents, const char* key, int64_t fallback,
                  const std::string& file) {
  const auto found = contents.metadata.find(key);
  if (found == contents.metadata.end()) return fallback;
  const auto* number = std::get_if<int64_t>(&found->second);
  if (number == nullptr) throw_error("{}: metadata key '{}' is no whole number", file, key);
  return *number;
}

std::string ending_of(int64_t part, int64_t count) {
  return fmt::format("-{:05}-of-{:05}.gguf", part + 1, count);
}

}  // namespace

GgufFile::GgufFile(const std::filesystem::path& path) {
  const std::string file = path.string();
  files_.emplace_back(path);
  contents_ = parse_gguf(files_.front().bytes(), file);
  const int64_t count = number_or(contents_, kCount, 1, file);
  const int64_t part = number_or(contents_, kNumber, 0, file);
  if (count <= 1) return;
  if (part != 0)
    throw_error("{}: is part {} of {}; name the first one, which ends in {}", file, part + 1, count,
                ending_of(0, count));
  add_parts(count);
}

void GgufFile::add_parts(int64_t count) {
  const std::filesystem::path first = path();
  const std::string name = first.filename().string(), ending = ending_of(0, count);
  if (!name.ends_with(ending))
    throw_error("{}: is part 1 of {}, but its name does not end in {}, so the others are not found",
                first.string(), count, ending);
  std::set<std::string> names;
  for (const GgufTensor& tensor : contents_.tensors) names.insert(tensor.name);
  const std::string prefix = name.substr(0, name.size() - ending.size());
  for (int64_t part = 1; part < count; ++part) {
    const auto path = first.parent_path() / (prefix + ending_of(part, count));
    const std::string file = path.string();
    if (!std::filesystem::exists(path))
      throw_error("{}: is part 1 of {}, and part {} is not there: {}", first.string(), count,
                  part + 1, path.filename().string());
    files_.emplace_back(path);
    Gguf more = parse_gguf(files_.back().bytes(), file);
    if (number_or(more, kNumber, -1, file) != part || number_or(more, kCount, -1, file) != count)
      throw_error("{}: its metadata do not say that it is part {} of {}", file, part + 1, count);
    for (GgufTensor& tensor : more.tensors) {
      if (!names.insert(tensor.name).second)
        throw_error("{}: tensor '{}' is in an earlier part too", file, tensor.name);
      contents_.tensors.push_back(std::move(tensor));
    }
  }
  const auto tensors = static_cast<int64_t>(contents_.tensors.size());
  const int64_t expected = number_or(contents_, kNumTensors, tensors, first.string());
  if (expected != tensors)
    throw_error("{}: its {} parts hold {} tensors, '{}' says {}", first.string(), count, tensors,
                kNumTensors, expected);
}

}  // namespace halo
