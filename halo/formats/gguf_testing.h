// Writes GGUF files for tests, right or, where asked for, wrong.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "halo/formats/gguf.h"

namespace halo::test {

class GgufWriter {
 public:
  using enum GgufValueType;

  template <class T>
  static std::string raw(T value) {
    return {reinterpret_cast<const char*>(&value), sizeof(T)};
  }
  static std::string text(std::string_view value) {
    return raw<uint64_t>(value.size()) + std::string(value);
  }

  // An entry as its bytes. `type` may be a number that is no type's.
  template <class Type>
  void entry(const std::string& key, Type type, const std::string& bytes) {
    entries_ += text(key) + raw(static_cast<uint32_t>(type)) + bytes;
    ++num_entries_;
  }
  void add(const std::string& key, const char* value) { entry(key, kString, text(value)); }
  void add(const std::string& key, uint32_t value) { entry(key, kU32, raw(value)); }
  void add(const std::string& key, float value) { entry(key, kF32, raw(value)); }
  void add(const std::string& key, bool value) { entry(key, kBool, raw<uint8_t>(value)); }
  void add(const std::string& key, const std::vector<std::string>& values) {
    std::string bytes = raw(kString) + raw<uint64_t>(values.size());
    for (const std::string& value : values) bytes += text(value);
    entry(key, kArray, bytes);
  }
  void add(const std::string& key, const std::vector<int32_t>& values) {
    std::string bytes = raw(kI32) + raw<uint64_t>(values.size());
    for (const int32_t value : values) bytes += raw(value);
    entry(key, kArray, bytes);
  }
  void add(const std::string& key, const std::vector<float>& values) {
    std::string bytes = raw(kF32) + raw<uint64_t>(values.size());
    for (const float value : values) bytes += raw(value);
    entry(key, kArray, bytes);
  }

  // Extents as the file has them: the row's length first.
  void tensor(const std::string& name, const std::vector<uint64_t>& extents, uint32_t type,
              const std::string& bytes) {
    data_.resize((data_.size() + alignment - 1) / alignment * alignment);
    info(name, extents, type, data_.size());
    data_ += bytes;
  }
  void tensor(const std::string& name, const std::vector<uint64_t>& extents,
              const std::vector<float>& values) {
    tensor(name, extents, 0,
           {reinterpret_cast<const char*>(values.data()), values.size() * sizeof(float)});
  }
  void info(const std::string& name, const std::vector<uint64_t>& extents, uint32_t type,
            uint64_t offset) {
    infos_ += text(name) + raw<uint32_t>(static_cast<uint32_t>(extents.size()));
    for (const uint64_t extent : extents) infos_ += raw(extent);
    infos_ += raw(type) + raw(offset);
    ++num_tensors_;
  }

  std::string file() const {
    std::string out =
        "GGUF" + raw(version) + raw(num_tensors_) + raw(num_entries_) + entries_ + infos_;
    out.resize((out.size() + alignment - 1) / alignment * alignment);
    return out + data_;
  }

  uint32_t version = 3;
  uint64_t alignment = 32;

 private:
  uint64_t num_tensors_ = 0, num_entries_ = 0;
  std::string entries_, infos_, data_;
};

}  // namespace halo::test
