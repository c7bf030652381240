// The reader trusts nothing: sizes are compared with the file before anything is allocated, and all
// arithmetic on numbers from the header is checked.
#include "halo/formats/safetensors.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cstring>
#include <utility>

#include "halo/base/check.h"
#include "halo/base/json.h"

namespace halo {
namespace {

static_assert(std::endian::native == std::endian::little, "files are little-endian");

constexpr uint64_t kMaxHeaderBytes = 100'000'000;
constexpr uint64_t kPrefixBytes = 8;  // the header's length
constexpr const char* kMetadataKey = "__metadata__";
constexpr std::array kTypes = {DType::kF64, DType::kF32, DType::kF16, DType::kBF16, DType::kI64,
                               DType::kI32, DType::kI16, DType::kI8,  DType::kU8,   DType::kBool};

// Names end up in messages.
bool is_valid_name(std::string_view name) {
  return !name.empty() && name != kMetadataKey && std::ranges::none_of(name, [](char c) {
    return static_cast<unsigned char>(c) < 0x20 || c == 0x7f;
  });
}

std::string serialized(std::string_view text) {
  return json::serialize(json::value(json::string_view(text.data(), text.size())));
}

class HeaderParser {
 public:
  HeaderParser(std::span<const std::byte> bytes, const std::string& file)
      : bytes_(bytes), file_(file) {}

  std::vector<TensorView> parse(std::map<std::string, std::string>* metadata) {
    read_header_text();
    const json::value header = parse_json(header_, file_, kPrefixBytes);
    std::vector<TensorView> tensors;
    for (const auto& [key, value] : header.get_object()) {
      const std::string_view name(key.data(), key.size());
      if (name == kMetadataKey) {
        read_metadata(value, metadata);
      } else {
        tensors.push_back(read_tensor(name, value));
      }
    }
    check_coverage(tensors);
    return tensors;
  }

 private:
  void read_header_text() {
    if (bytes_.size() < kPrefixBytes)
      throw ParseError(file_, bytes_.size(), "too short for a safetensors file");
    uint64_t length;
    std::memcpy(&length, bytes_.data(), sizeof(length));
    if (length > kMaxHeaderBytes)
      throw ParseError(
          file_, 0,
          fmt::format("header of {} bytes is larger than the {} allowed", length, kMaxHeaderBytes));
    if (length > bytes_.size() - kPrefixBytes)
      throw ParseError(file_, 0,
                       fmt::format("header of {} bytes reaches beyond the file's {} bytes", length,
                                   bytes_.size()));
    header_ = {reinterpret_cast<const char*>(bytes_.data()) + kPrefixBytes, length};
    if (header_.empty() || header_[0] != '{')
      throw ParseError(file_, kPrefixBytes, "header does not start with '{'");
    data_ = bytes_.subspan(kPrefixBytes + length);
  }

  // Points at the key of a tensor in the header, as far as it is spelt without needless escapes.
  [[noreturn]] void refuse(std::string_view name, const std::string& what) const {
    const size_t at = header_.find(serialized(name));
    throw ParseError(file_, kPrefixBytes + (at == std::string_view::npos ? 0 : at),
                     fmt::format("tensor {}: {}", serialized(name), what));
  }

  void read_metadata(const json::value& value, std::map<std::string, std::string>* metadata) const {
    const auto refuse_metadata = [&](const std::string& what) {
      throw ParseError(file_, kPrefixBytes + header_.find(kMetadataKey), "__metadata__ " + what);
    };
    if (value.is_null()) return;
    if (!value.is_object()) refuse_metadata("is not an object");
    for (const auto& [key, entry] : value.get_object()) {
      if (!entry.is_string())
        refuse_metadata(fmt::format("'{}' is not a string", std::string(key)));
      if (metadata != nullptr) metadata->emplace(key, std::string(entry.get_string()));
    }
  }

  TensorView read_tensor(std::string_view name, const json::value& value) const {
    if (!is_valid_name(name)) refuse(name, "name is empty or has a control character");
    if (!value.is_object()) refuse(name, "its entry is not an object");
    const json::object& entry = value.get_object();
    TensorView tensor{.name = std::string(name)};
    tensor.dtype = read_dtype(name, entry);
    const uint64_t size = read_shape(name, entry, tensor.shape, dtype_size(tensor.dtype));
    const auto [begin, end] = read_offsets(name, entry);
    if (end - begin != size)
      refuse(name,
             fmt::format("shape and type need {} bytes, data_offsets hold {}", size, end - begin));
    tensor.bytes = data_.subspan(begin, size);
    return tensor;
  }

  DType read_dtype(std::string_view name, const json::object& entry) const {
    const json::value* dtype = entry.if_contains("dtype");
    if (dtype == nullptr || !dtype->is_string()) refuse(name, "dtype is missing or no string");
    const std::string_view text = dtype->get_string();
    for (const DType type : kTypes)
      if (dtype_name(type) == text) return type;
    std::string known;
    for (const DType type : kTypes) (known += known.empty() ? "" : ", ") += dtype_name(type);
    refuse(name, fmt::format("unknown type {}; known are {}", serialized(text), known));
  }

  // Fills `shape` and returns the bytes of such a tensor.
  uint64_t read_shape(std::string_view name, const json::object& entry, std::vector<int64_t>& shape,
                      uint64_t element_size) const {
    const json::value* value = entry.if_contains("shape");
    if (value == nullptr || !value->is_array()) refuse(name, "shape is missing or no array");
    uint64_t size = element_size;
    for (const json::value& extent : value->get_array()) {
      if (!extent.is_int64() || extent.get_int64() < 0)
        refuse(name, fmt::format("shape holds {}, expected integers from 0 to 2^63 - 1",
                                 json::serialize(extent)));
      if (__builtin_mul_overflow(size, static_cast<uint64_t>(extent.get_int64()), &size))
        refuse(name, "shape times type size overflows 64 bits");
      shape.push_back(extent.get_int64());
    }
    return size;
  }

  std::pair<uint64_t, uint64_t> read_offsets(std::string_view name,
                                             const json::object& entry) const {
    const json::value* value = entry.if_contains("data_offsets");
    const json::array* pair = value == nullptr ? nullptr : value->if_array();
    if (pair == nullptr || pair->size() != 2 || !pair->at(0).is_int64() ||
        !pair->at(1).is_int64() || pair->at(0).get_int64() < 0)
      refuse(name, "data_offsets is missing or not a pair of integers from 0 to 2^63 - 1");
    const int64_t begin = pair->at(0).get_int64(), end = pair->at(1).get_int64();
    if (begin > end) refuse(name, fmt::format("data_offsets [{}, {}] run backwards", begin, end));
    if (static_cast<uint64_t>(end) > data_.size())
      refuse(name, fmt::format("data_offsets end at {}, beyond the file's {} bytes of data", end,
                               data_.size()));
    return {begin, end};
  }

  // Sorts by offset; the tensors must cover the data without holes, overlaps or a tail.
  void check_coverage(std::vector<TensorView>& tensors) const {
    const auto begin_of = [&](const TensorView& t) -> uint64_t {
      return t.bytes.data() - data_.data();
    };
    std::stable_sort(tensors.begin(), tensors.end(), [&](const TensorView& a, const TensorView& b) {
      return std::pair(begin_of(a), a.bytes.size()) < std::pair(begin_of(b), b.bytes.size());
    });
    uint64_t covered = 0;
    for (size_t i = 0; i < tensors.size(); ++i) {
      const uint64_t begin = begin_of(tensors[i]);
      if (begin < covered)
        refuse(tensors[i].name,
               fmt::format("overlaps the data of tensor {}", serialized(tensors[i - 1].name)));
      if (begin > covered)
        refuse(
            tensors[i].name,
            fmt::format("leaves a hole: data bytes {} to {} belong to no tensor", covered, begin));
      covered = begin + tensors[i].bytes.size();
    }
    if (covered < data_.size())
      throw ParseError(
          file_, bytes_.size() - data_.size() + covered,
          fmt::format("{} trailing bytes belong to no tensor", data_.size() - covered));
  }

  std::span<const std::byte> bytes_, data_;
  std::string_view header_;
  const std::string& file_;
};

json::object header_entry(const TensorSpec& tensor, uint64_t begin) {
  json::array shape;
  for (const int64_t extent : tensor.shape) shape.push_back(extent);
  return {{"dtype", json::string_view(dtype_name(tensor.dtype))},
          {"shape", shape},
          {"data_offsets", {begin, begin + tensor.num_bytes()}}};
}

int64_t product(const std::vector<int64_t>& shape) {
  int64_t count = 1;
  for (const int64_t extent : shape) count *= extent;
  return count;
}

}  // namespace

int64_t TensorView::numel() const {
  return product(shape);
}

int64_t TensorSpec::num_bytes() const {
  return product(shape) * static_cast<int64_t>(dtype_size(dtype));
}

std::vector<TensorView> parse_safetensors(std::span<const std::byte> bytes, const std::string& file,
                                          std::map<std::string, std::string>* metadata) {
  return HeaderParser(bytes, file).parse(metadata);
}

SafetensorsFile::SafetensorsFile(const std::filesystem::path& path) : file_(path) {
  tensors_ = parse_safetensors(file_.bytes(), path.string(), &metadata_);
  for (size_t i = 0; i < tensors_.size(); ++i) by_name_.emplace(tensors_[i].name, i);
}

const TensorView* SafetensorsFile::find(std::string_view name) const {
  const auto it = by_name_.find(name);
  return it == by_name_.end() ? nullptr : &tensors_[it->second];
}

const TensorView& SafetensorsFile::get(std::string_view name) const {
  const TensorView* tensor = find(name);
  if (tensor == nullptr) throw_error("{}: no tensor '{}'", path().string(), name);
  return *tensor;
}

std::string safetensors_header(std::span<const TensorSpec> tensors, const std::string& file,
                               const std::map<std::string, std::string>& metadata) {
  json::object header;
  if (!metadata.empty()) {
    json::object& entries = header[kMetadataKey].emplace_object();
    for (const auto& [key, value] : metadata) entries[key] = value;
  }
  uint64_t begin = 0;
  for (const TensorSpec& tensor : tensors) {
    HALO_CHECK(is_valid_name(tensor.name), "{}: '{}' cannot name a tensor", file, tensor.name);
    HALO_CHECK(header.emplace(tensor.name, header_entry(tensor, begin)).second,
               "{}: two tensors are named '{}'", file, tensor.name);
    begin += tensor.num_bytes();
  }
  std::string text = json::serialize(header);
  text.resize((text.size() + 7) / 8 * 8, ' ');
  HALO_CHECK(text.size() <= kMaxHeaderBytes, "{}: header of {} bytes is larger than the {} allowed",
             file, text.size(), kMaxHeaderBytes);
  const uint64_t length = text.size();
  return std::string(reinterpret_cast<const char*>(&length), sizeof(length)) + text;
}

SafetensorsWriter::SafetensorsWriter(const std::filesystem::path& path,
                                     std::span<const TensorSpec> tensors,
                                     const std::map<std::string, std::string>& metadata)
    : file_(path), path_(path) {
  file_.write(safetensors_header(tensors, path.string(), metadata));
  for (const TensorSpec& tensor : tensors) left_ += tensor.num_bytes();
}

void SafetensorsWriter::write(std::span<const std::byte> bytes) {
  HALO_CHECK(bytes.size() <= left_, "{}: {} bytes more than its tensors have", path_.string(),
             bytes.size() - left_);
  file_.write(bytes);
  left_ -= bytes.size();
}

void SafetensorsWriter::commit() {
  HALO_CHECK(left_ == 0, "{}: {} bytes of its tensors are missing", path_.string(), left_);
  file_.commit();
}

void write_safetensors(const std::filesystem::path& path, std::span<const TensorView> tensors,
                       const std::map<std::string, std::string>& metadata) {
  std::vector<TensorSpec> specs;
  for (const TensorView& tensor : tensors) {
    specs.push_back({tensor.name, tensor.dtype, tensor.shape});
    HALO_CHECK(tensor.bytes.size() == specs.back().num_bytes(),
               "{}: tensor '{}' has {} bytes, its shape and type need {}", path.string(),
               tensor.name, tensor.bytes.size(), specs.back().num_bytes());
  }
  SafetensorsWriter writer(path, specs, metadata);
  for (const TensorView& tensor : tensors) writer.write(tensor.bytes);
  writer.commit();
}

}  // namespace halo
