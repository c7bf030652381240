// GGUF files, read only (docs/formats/gguf.md). The parser trusts nothing: every count, offset and
// length is compared with the file before it is used; each violation is a ParseError.
#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <span>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "halo/base/files.h"

namespace halo {

enum class GgufType { kF32, kF16, kBF16, kQ8_0, kQ4_0, kQ4_1, kQ5_0, kQ5_1, kQ4_K, kQ5_K, kQ6_K };

// Values of a row are stored in blocks of so many elements and bytes.
struct GgufBlock {
  int64_t elements, bytes;
};
GgufBlock gguf_block(GgufType type);

// Types of metadata values, as numbered in files.
enum class GgufValueType : uint32_t {
  kU8,
  kI8,
  kU16,
  kI16,
  kU32,
  kI32,
  kF32,
  kBool,
  kString,
  kArray,
  kU64,
  kI64,
  kF64
};

// Integers of all widths become int64_t, floats double. Strings are UTF-8, bytes of the file.
using GgufValue = std::variant<bool, int64_t, double, std::string_view, std::vector<int64_t>,
                               std::vector<double>, std::vector<std::string_view>>;

struct GgufTensor {
  std::string name;
  GgufType type = GgufType::kF32;
  std::vector<int64_t> shape;  // 1 to 4 extents, the row last (the file has it first)
  std::span<const std::byte> bytes;

  int64_t row_length() const { return shape.back(); }
  int64_t num_rows() const;
};

struct Gguf {
  std::map<std::string, GgufValue, std::less<>> metadata;
  std::vector<GgufTensor> tensors;  // in file order
};

// The fuzz target's entry. Strings and tensors are views into `bytes`.
Gguf parse_gguf(std::span<const std::byte> bytes, const std::string& file);

// A mapped file and what it holds. Of a model in parts (NAME-00001-of-00003.gguf, ...) the first is
// to be named, which has the metadata; the tensors are those of all parts, which lie beside it.
class GgufFile {
 public:
  explicit GgufFile(const std::filesystem::path& path);

  const Gguf& contents() const { return contents_; }
  const std::filesystem::path& path() const { return files_.front().path(); }

 private:
  void add_parts(int64_t count);

  std::vector<MappedFile> files_;
  Gguf contents_;
};

// `blocks` of one type as fp32, block for block; out has gguf_block(type).elements a block.
void dequantize(GgufType type, std::span<const std::byte> blocks, std::span<float> out);

}  // namespace halo
