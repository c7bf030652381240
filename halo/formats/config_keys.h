// What the readers of config.json share: a reader of keys that remembers which it was asked for.
#pragma once

#include <algorithm>
#include <cmath>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "halo/base/check.h"
#include "halo/base/nearest.h"
#include "halo/formats/model_config.h"

namespace halo {

// Limits under which no count of parameters or bytes overflows 63 bits.
inline constexpr int64_t kMaxSize = 1 << 22;  // of anything that sizes a tensor
inline constexpr int64_t kMaxLayers = 1 << 12;
inline constexpr int64_t kMaxPosition = int64_t{1} << 40;

// The first name of a value: the one that is written.
template <class E>
const std::string& name_of(const std::vector<std::pair<std::string, E>>& names, E value) {
  return std::find_if(names.begin(), names.end(), [&](const auto& n) { return n.second == value; })
      ->first;
}

// Reads keys of one object and remembers which.
class KeyReader {
 public:
  KeyReader(const json::object& object, std::string file)
      : object_(object), file_(std::move(file)) {}

  // nullptr where the key is absent or null: Hugging Face writes null for "not set".
  const json::value* find(const std::string& key) {
    read_.insert(key);
    const json::value* value = object_.if_contains(key);
    return value == nullptr || value->is_null() ? nullptr : value;
  }
  bool is_present(const std::string& key) const { return object_.contains(key); }

  [[noreturn]] void refuse(const std::string& key, const std::string& what) const {
    const json::value* value = object_.if_contains(key);
    std::string shown = value == nullptr ? "missing" : json::serialize(*value);
    if (shown.size() > 60) shown = shown.substr(0, 60) + "...";
    throw_error("{}: key '{}' is {}: {}", file_, key, shown, what);
  }

  template <class T>
  T get(const std::string& key) {
    if (find(key) == nullptr) refuse(key, "a value is needed");
    return json_get<T>(object_, key, file_);
  }
  template <class T>
  T get_or(const std::string& key, T fallback) {
    return find(key) == nullptr ? std::move(fallback) : json_get<T>(object_, key, file_);
  }

  int64_t size(const std::string& key, int64_t limit = kMaxSize) {
    return check_size(key, get<int64_t>(key), limit);
  }
  int64_t size_or(const std::string& key, int64_t fallback, int64_t limit = kMaxSize) {
    return check_size(key, get_or<int64_t>(key, fallback), limit);
  }
  double positive_or(const std::string& key, double fallback) {
    const double value = get_or<double>(key, fallback);
    if (!(value > 0) || !std::isfinite(value)) refuse(key, "expected a number above 0");
    return value;
  }

  // The value that a string names.
  template <class E>
  E one_of(const std::string& key, const std::string& text,
           const std::vector<std::pair<std::string, E>>& names) const {
    std::vector<std::string> known;
    for (const auto& [name, value] : names) {
      if (name == text) return value;
      known.push_back(name);
    }
    throw_error("{}: key '{}': '{}' is not supported; the nearest that is: '{}' (of {})", file_,
                key, text, nearest(text, known), fmt::join(known, ", "));
  }

  const std::set<std::string, std::less<>>& asked() const { return read_; }
  // What was never asked for, in file order.
  json::object unread() const {
    json::object rest;
    for (const auto& [key, value] : object_)
      if (!read_.contains(std::string_view(key.data(), key.size()))) rest.emplace(key, value);
    return rest;
  }

 private:
  int64_t check_size(const std::string& key, int64_t value, int64_t limit) const {
    if (value < 1 || value > limit) refuse(key, fmt::format("expected 1 to {}", limit));
    return value;
  }

  const json::object& object_;
  std::string file_;
  std::set<std::string, std::less<>> read_;
};

// The rotary settings of a config.json in either spelling: `rope_theta` and `rope_scaling`
// (transformers 4), or `rope_parameters`, which holds both (transformers 5).
void read_rope(KeyReader& keys, const std::string& file, ModelConfig& config);
// The value of `rope_scaling`; null where there is none.
json::value rope_scaling_to_json(const RopeScaling& scaling);

}  // namespace halo
