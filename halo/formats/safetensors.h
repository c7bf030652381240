// safetensors files, read and written (docs/formats/safetensors.md). What the reference reads is
// read, each violation is a ParseError of its own.
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
  std::span<const std::byte> bytes;  // row-major, little-endian; anywhere, aligned or not

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
  void allow_private_writes() { file_.allow_private_writes(); }  // MappedFile's

 private:
  MappedFile file_;
  std::vector<TensorView> tensors_;
  std::map<std::string, size_t, std::less<>> by_name_;
  std::map<std::string, std::string> metadata_;
};

// Parses a header and checks every offset against `bytes`; the fuzz target's entry.
std::vector<TensorView> parse_safetensors(std::span<const std::byte> bytes, const std::string& file,
                                          std::map<std::string, std::string>* metadata);

// A tensor whose bytes do not exist yet.
struct TensorSpec {
  std::string name;
  DType dtype = DType::kF32;
  std::vector<int64_t> shape;

  int64_t num_bytes() const;
};

// What stands before the tensors' bytes, which follow one another in the order given.
std::string safetensors_header(std::span<const TensorSpec> tensors, const std::string& file,
                               const std::map<std::string, std::string>& metadata = {
                                   {"format", "pt"}});

// Writes a file piece by piece, for models that do not fit into memory: the header at once, then
// the bytes of the tensors in the order given, each in as many pieces as one likes.
class SafetensorsWriter {
 public:
  SafetensorsWriter(const std::filesystem::path& path, std::span<const TensorSpec> tensors,
                    const std::map<std::string, std::string>& metadata = {{"format", "pt"}});
  void write(std::span<const std::byte> bytes);
  void commit();  // an Error where bytes are missing

 private:
  AtomicFile file_;
  std::filesystem::path path_;
  uint64_t left_ = 0;  // bytes
};

// Written in the order given, through AtomicFile.
void write_safetensors(const std::filesystem::path& path, std::span<const TensorView> tensors,
                       const std::map<std::string, std::string>& metadata = {{"format", "pt"}});

// Tensor name -> shard (a file of the same folder) from the text of an index file.
std::map<std::string, std::string> parse_weight_index(std::string_view text,
                                                      const std::string& file);

// The tensors of a model directory: model.safetensors, or the shards that
// model.safetensors.index.json lists (every index entry is checked against the shards' headers,
// both ways). They have their full names (weight_names.h).
class WeightFiles {
 public:
  explicit WeightFiles(const std::filesystem::path& directory);
  // Whether there are any.
  static bool are_in(const std::filesystem::path& directory);

  const std::vector<TensorView>& tensors() const { return tensors_; }  // sorted by name
  const TensorView* find(std::string_view name) const;                 // nullptr: not there
  void allow_private_writes();  // MappedFile's, of every file
  // The files themselves, the index included.
  std::vector<std::filesystem::path> paths() const;

 private:
  void read_shards(const std::filesystem::path& directory);

  std::filesystem::path index_;  // empty: a single file
  std::vector<std::unique_ptr<SafetensorsFile>> files_;
  std::vector<TensorView> tensors_;
};

}  // namespace halo
