#include "halo/formats/gguf.h"

#include <algorithm>
#include <bit>
#include <cstring>
#include <optional>

#include "halo/base/check.h"
#include "halo/base/utf8.h"

namespace halo {
namespace {

constexpr uint32_t kVersions[] = {2, 3};   // 1 had counts of 32 bits
constexpr uint64_t kMaxEntries = 1 << 16;  // of metadata and of tensors
constexpr uint64_t kMaxNameBytes = 256;    // of a key or a tensor
constexpr uint64_t kDefaultAlignment = 32;
constexpr uint64_t kMaxAlignment = 1 << 16;
constexpr uint32_t kMaxDimensions = 4;
constexpr const char* kAlignmentKey = "general.alignment";

using ValueType = GgufValueType;

struct TypeNumber {
  uint32_t number;
  GgufType type;
};
constexpr TypeNumber kTypeNumbers[] = {
    {0, GgufType::kF32},   {1, GgufType::kF16},   {2, GgufType::kQ4_0}, {3, GgufType::kQ4_1},
    {6, GgufType::kQ5_0},  {7, GgufType::kQ5_1},  {8, GgufType::kQ8_0}, {12, GgufType::kQ4_K},
    {13, GgufType::kQ5_K}, {14, GgufType::kQ6_K}, {30, GgufType::kBF16}};

class Parser {
 public:
  Parser(std::span<const std::byte> bytes, const std::string& file) : bytes_(bytes), file_(file) {}

  Gguf parse() {
    if (text(4, "the magic") != "GGUF") refuse(0, "does not begin with \"GGUF\"");
    const auto version = read<uint32_t>();
    if (std::ranges::find(kVersions, version) == std::end(kVersions))
      refuse(4, fmt::format("version {} is not supported; only 2 and 3, little-endian", version));
    const uint64_t num_tensors = read_count("tensors"), num_values = read_count("metadata entries");
    for (uint64_t i = 0; i < num_values; ++i) read_entry();
    for (uint64_t i = 0; i < num_tensors; ++i) read_tensor_info();
    place_tensors();
    return std::move(out_);
  }

 private:
  // A tensor's header entry; its bytes are placed when the data's beginning is known.
  struct Info {
    uint64_t at;  // of its entry
    uint64_t offset, size;
  };

  [[noreturn]] void refuse(uint64_t at, const std::string& what) const {
    throw ParseError(file_, at, what);
  }
  uint64_t left() const { return bytes_.size() - at_; }

  std::string_view text(uint64_t length, const char* what) {
    if (length > left())
      refuse(at_, fmt::format("{} of {} bytes reaches beyond the file's end", what, length));
    const std::string_view view(reinterpret_cast<const char*>(bytes_.data()) + at_, length);
    at_ += length;
    return view;
  }

  template <class T>
  T read() {
    const std::string_view raw = text(sizeof(T), "a number");
    T value;
    std::memcpy(&value, raw.data(), sizeof(T));
    return value;
  }

  // Each entry takes more than 12 bytes, which bounds what is allocated for them.
  uint64_t read_count(const char* what) {
    const uint64_t at = at_;
    const auto count = read<uint64_t>();
    if (count > kMaxEntries || count > bytes_.size() / 12)
      refuse(at, fmt::format("{} {} in a file of {} bytes", count, what, bytes_.size()));
    return count;
  }

  std::string_view read_string() {
    const uint64_t at = at_;
    const std::string_view value = text(read<uint64_t>(), "a string");
    if (!is_utf8(value)) refuse(at, "a string is not UTF-8");
    return value;
  }

  std::string_view read_name() {
    const uint64_t at = at_;
    const std::string_view name = read_string();
    if (name.empty() || name.size() > kMaxNameBytes)
      refuse(at, fmt::format("a name of {} bytes; expected 1 to {}", name.size(), kMaxNameBytes));
    return name;
  }

  void read_entry() {
    const uint64_t at = at_;
    const std::string key(read_name());
    const auto type = read<uint32_t>();
    GgufValue value =
        type == static_cast<uint32_t>(ValueType::kArray) ? read_array(key) : read_scalar(type, key);
    if (!out_.metadata.emplace(key, std::move(value)).second)
      refuse(at, fmt::format("key '{}' is there twice", key));
  }

  GgufValue read_scalar(uint32_t type, const std::string& key) {
    const uint64_t at = at_;
    switch (static_cast<ValueType>(type)) {
      case ValueType::kBool: {
        const auto value = read<uint8_t>();
        if (value > 1) refuse(at, fmt::format("key '{}': {} is no bool", key, value));
        return value == 1;
      }
      case ValueType::kString:
        return read_string();
      case ValueType::kF32:
      case ValueType::kF64:
        return read_double(type);
      default:
        return read_integer(type, key);
    }
  }

  double read_double(uint32_t type) {
    return static_cast<ValueType>(type) == ValueType::kF32 ? read<float>() : read<double>();
  }

  int64_t read_integer(uint32_t type, const std::string& key) {
    const uint64_t at = at_;
    switch (static_cast<ValueType>(type)) {
      case ValueType::kU8:
        return read<uint8_t>();
      case ValueType::kI8:
        return read<int8_t>();
      case ValueType::kU16:
        return read<uint16_t>();
      case ValueType::kI16:
        return read<int16_t>();
      case ValueType::kU32:
        return read<uint32_t>();
      case ValueType::kI32:
        return read<int32_t>();
      case ValueType::kI64:
        return read<int64_t>();
      case ValueType::kU64: {
        const auto value = read<uint64_t>();
        if (value > INT64_MAX) refuse(at, fmt::format("key '{}': {} is too large", key, value));
        return static_cast<int64_t>(value);
      }
      default:
        refuse(at, fmt::format("key '{}': unknown type {} of a value", key, type));
    }
  }

  // Bytes that an element takes at least; none for a type that arrays do not hold.
  static std::optional<uint64_t> least_bytes(ValueType type) {
    switch (type) {
      case ValueType::kU8:
      case ValueType::kI8:
      case ValueType::kBool:
        return 1;
      case ValueType::kU16:
      case ValueType::kI16:
        return 2;
      case ValueType::kU32:
      case ValueType::kI32:
      case ValueType::kF32:
        return 4;
      case ValueType::kU64:
      case ValueType::kI64:
      case ValueType::kF64:
      case ValueType::kString:
        return 8;
      case ValueType::kArray:
        return std::nullopt;
    }
    return std::nullopt;
  }

  GgufValue read_array(const std::string& key) {
    const uint64_t at = at_;
    const auto type = read<uint32_t>();
    const auto value_type = static_cast<ValueType>(type);
    const auto count = read<uint64_t>();
    const std::optional<uint64_t> bytes = least_bytes(value_type);
    if (!bytes) refuse(at, fmt::format("key '{}': an array of values of type {}", key, type));
    if (count > left() / *bytes)
      refuse(at, fmt::format("key '{}': {} elements reach beyond the file's end", key, count));
    if (value_type == ValueType::kString)
      return fill<std::string_view>(count, [&] { return read_string(); });
    if (value_type == ValueType::kF32 || value_type == ValueType::kF64)
      return fill<double>(count, [&] { return read_double(type); });
    return fill<int64_t>(count, [&]() -> int64_t {
      return value_type == ValueType::kBool ? read<uint8_t>() : read_integer(type, key);
    });
  }

  template <class T, class Read>
  static std::vector<T> fill(uint64_t count, const Read& read_one) {
    std::vector<T> values;
    values.reserve(count);
    for (uint64_t i = 0; i < count; ++i) values.push_back(read_one());
    return values;
  }

  void read_tensor_info() {
    Info info{.at = at_};
    GgufTensor tensor{.name = std::string(read_name())};
    const auto fail = [&](const std::string& what) {
      refuse(info.at, fmt::format("tensor '{}': {}", tensor.name, what));
    };
    const auto dimensions = read<uint32_t>();
    if (dimensions < 1 || dimensions > kMaxDimensions)
      fail(fmt::format("{} dimensions; expected 1 to {}", dimensions, kMaxDimensions));
    uint64_t elements = 1;
    for (uint32_t i = 0; i < dimensions; ++i) {
      const auto extent = read<uint64_t>();
      if (extent == 0 || extent > INT64_MAX || __builtin_mul_overflow(elements, extent, &elements))
        fail(fmt::format("extent {} is 0 or too large", extent));
      tensor.shape.insert(tensor.shape.begin(), static_cast<int64_t>(extent));
    }
    const auto type = read<uint32_t>();
    const auto* known = std::ranges::find(kTypeNumbers, type, &TypeNumber::number);
    if (known == std::end(kTypeNumbers))
      fail(
          fmt::format("type {} is not supported (F32, F16, BF16, Q8_0, Q4_0, Q4_1, Q5_0, Q5_1, "
                      "Q4_K, Q5_K and Q6_K are)",
                      type));
    tensor.type = known->type;
    const GgufBlock block = gguf_block(tensor.type);
    if (tensor.row_length() % block.elements != 0)
      fail(fmt::format("rows of {} are not whole blocks of {}", tensor.row_length(),
                       block.elements));
    if (__builtin_mul_overflow(elements / block.elements, static_cast<uint64_t>(block.bytes),
                               &info.size))
      fail("its size overflows 64 bits");
    info.offset = read<uint64_t>();
    infos_.push_back(info);
    out_.tensors.push_back(std::move(tensor));
  }

  uint64_t alignment() const {
    const auto it = out_.metadata.find(kAlignmentKey);
    if (it == out_.metadata.end()) return kDefaultAlignment;
    const int64_t* value = std::get_if<int64_t>(&it->second);
    if (!value || *value < 8 || static_cast<uint64_t>(*value) > kMaxAlignment ||
        !std::has_single_bit(static_cast<uint64_t>(*value)))
      refuse(at_, fmt::format("{} is no power of 2 from 8 to {}", kAlignmentKey, kMaxAlignment));
    return static_cast<uint64_t>(*value);
  }

  // Tensors lie behind the header, aligned, within the file, and share no byte.
  void place_tensors() {
    const uint64_t align = alignment();
    const uint64_t begin = (at_ + align - 1) / align * align;
    const uint64_t data = begin > bytes_.size() ? 0 : bytes_.size() - begin;
    std::vector<size_t> order(infos_.size());
    for (size_t i = 0; i < order.size(); ++i) order[i] = i;
    std::ranges::sort(order, {}, [&](size_t i) { return infos_[i].offset; });
    std::map<std::string_view, size_t> names;
    uint64_t covered = 0;
    for (const size_t i : order) {
      const Info& info = infos_[i];
      GgufTensor& tensor = out_.tensors[i];
      const auto fail = [&](const std::string& what) {
        refuse(info.at, fmt::format("tensor '{}': {}", tensor.name, what));
      };
      if (info.offset % align != 0)
        fail(fmt::format("offset {} is not aligned to {}", info.offset, align));
      if (info.offset > data || info.size > data - info.offset)
        fail(fmt::format("{} bytes at offset {} reach beyond the file's {} bytes of data",
                         info.size, info.offset, data));
      if (info.offset < covered) fail("overlaps the data of another tensor");
      if (!names.emplace(tensor.name, i).second) fail("is there twice");
      covered = info.offset + info.size;
      tensor.bytes = bytes_.subspan(begin + info.offset, info.size);
    }
  }

  std::span<const std::byte> bytes_;
  const std::string& file_;
  uint64_t at_ = 0;
  Gguf out_;
  std::vector<Info> infos_;
};

}  // namespace

int64_t GgufTensor::num_rows() const {
  int64_t rows = 1;
  for (size_t i = 0; i + 1 < shape.size(); ++i) rows *= shape[i];
  return rows;
}

Gguf parse_gguf(std::span<const std::byte> bytes, const std::string& file) {
  return Parser(bytes, file).parse();
}

}  // namespace halo
