// safetensors files, read and written (docs/formats/safetensors.md). Strict as the reference
// implementation and stricter: each violation is a ParseError of its own.
#pragma once

#include <filesystem>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "halo/base/dtype.h"
#include "halo/base/files.h"

namespace halo {

// A named tensor whose bytes belong to somebody else (a mapped file, an arena).
struct TensorView {
  std::string name;
  DType dtype = DType::kF32;
  std::vector<int64_t> shape;
  std::span<const std::byte> bytes;  // row-major, little-endian

  int64_t numel() const;
};

// One mapped file. Views point into the map and live as long as this object.
class SafetensorsFile {
 public:
  explicit SafetensorsFile(const std::filesystem::path& path);

  const std::vector<TensorView>& tensors() const { return tensors_; }  // by offset
  const TensorView* find(std::string_view name) const;                 // nullptr: not there
  const TensorView& get(std::string_view name) const;                  // Error: not there
  const std::map<std::string, std::string>& metadata() const { return metadata_; }
  const std::filesystem::path& path() const { return file_.path(); }

 private:
  MappedFile file_;
  std::vector<TensorView> tensors_;
  std::map<std::string, size_t, std::less<>> by_name_;
  std::map<std::string, std::string> metadata_;
};

// Parses a header and checks every offset against `bytes`; the fuzz target's entry.
std::vector<TensorView> parse_safetensors(std::span<const std::byte> bytes, const std::string& file,
                                          std::map<std::string, std::string>* metadata);

// Written in the order given, through AtomicFile.
void write_safetensors(const std::filesystem::path& path, std::span<const TensorView> tensors,
                       const std::map<std::string, std::string>& metadata = {{"format", "pt"}});

// The tensors of a model directory: model.safetensors, or the shards that
// model.safetensors.index.json lists (every index entry is checked against the shards' headers,
// both ways).
class WeightFiles {
 public:
  explicit WeightFiles(const std::filesystem::path& directory);
  std::vector<TensorView> tensors() const;  // sorted by name
  const TensorView* find(std::string_view name) const;
  // The files themselves, the index included.
  std::vector<std::filesystem::path> paths() const;

 private:
  std::filesystem::path index_;  // empty: a single file
  std::vector<std::unique_ptr<SafetensorsFile>> files_;
};

}  // namespace halo
