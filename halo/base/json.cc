// A handler for Boost.JSON's event parser that builds the value and refuses what boost::json::parse
// lets through: duplicate keys, and numbers a double cannot hold.
#include "halo/base/json.h"

#include <algorithm>
#include <boost/json/basic_parser_impl.hpp>
#include <charconv>
#include <cmath>
#include <cstdint>
#include <system_error>
#include <type_traits>
#include <unordered_set>
#include <vector>

#include "halo/base/check.h"
#include "halo/base/files.h"

namespace halo {
namespace {

class Builder {
 public:
  static constexpr size_t max_object_size = -1, max_array_size = -1;
  static constexpr size_t max_key_size = -1, max_string_size = -1;

  Builder() { stack_.reset(); }
  json::value release() { return stack_.release(); }
  // What the handler itself objected to; empty where the grammar did.
  const std::string& complaint() const { return complaint_; }

  bool on_document_begin(json::error_code&) { return true; }
  bool on_document_end(json::error_code&) { return true; }
  bool on_object_begin(json::error_code&) {
    keys_.emplace_back();
    return true;
  }
  bool on_object_end(size_t n, json::error_code&) {
    keys_.pop_back();
    stack_.push_object(n);
    return true;
  }
  bool on_array_begin(json::error_code&) { return true; }
  bool on_array_end(size_t n, json::error_code&) {
    stack_.push_array(n);
    return true;
  }
  bool on_key_part(json::string_view s, size_t, json::error_code&) {
    key_.append(s.data(), s.size());
    return true;
  }
  bool on_key(json::string_view s, size_t, json::error_code& ec) {
    key_.append(s.data(), s.size());
    if (!keys_.back().insert(key_).second)
      return refuse(fmt::format("duplicate key '{}'", key_), ec);
    stack_.push_key(key_);
    key_.clear();
    return true;
  }
  bool on_string_part(json::string_view s, size_t, json::error_code&) {
    stack_.push_chars(s);
    return true;
  }
  bool on_string(json::string_view s, size_t, json::error_code&) {
    stack_.push_string(s);
    return true;
  }
  bool on_number_part(json::string_view s, json::error_code&) {
    number_.append(s.data(), s.size());
    return true;
  }
  bool on_int64(int64_t i, json::string_view, json::error_code&) {
    number_.clear();
    stack_.push_int64(i);
    return true;
  }
  bool on_uint64(uint64_t u, json::string_view, json::error_code&) {
    number_.clear();
    stack_.push_uint64(u);
    return true;
  }
  // Boost 1.81 rounds some decimals to a neighbour of the nearest double; from_chars does not.
  bool on_double(double approximate, json::string_view s, json::error_code& ec) {
    number_.append(s.data(), s.size());
    double exact = 0;
    const auto result = std::from_chars(number_.data(), number_.data() + number_.size(), exact);
    if (result.ec == std::errc::result_out_of_range) {
      if (std::fabs(approximate) > 1)
        return refuse(fmt::format("number {} is too large for a double", number_), ec);
      exact = 0;
    }
    number_.clear();
    stack_.push_double(exact);
    return true;
  }
  bool on_bool(bool b, json::error_code&) {
    stack_.push_bool(b);
    return true;
  }
  bool on_null(json::error_code&) {
    stack_.push_null();
    return true;
  }
  bool on_comment_part(json::string_view, json::error_code&) { return true; }
  bool on_comment(json::string_view, json::error_code&) { return true; }

 private:
  bool refuse(std::string complaint, json::error_code& ec) {
    complaint_ = std::move(complaint);
    ec = json::error::syntax;
    return false;
  }

  json::value_stack stack_;
  std::vector<std::unordered_set<std::string>> keys_;  // of the objects being read
  std::string key_, number_;                           // parts seen so far
  std::string complaint_;
};

void append_newline(std::string& out, int depth) {
  out += '\n';
  out.append(2 * depth, ' ');
}

void append_double(std::string& out, double number) {
  if (!std::isfinite(number)) {
    out += "null";
    return;
  }
  const std::string text = fmt::format("{}", number);
  out += text;
  if (text.find_first_of(".e") == std::string::npos) out += ".0";
}

void append(std::string& out, const json::value& value, int depth) {
  if (const auto* object = value.if_object()) {
    out += '{';
    for (bool first = true; const auto& [key, member] : *object) {
      if (!first) out += ',';
      first = false;
      append_newline(out, depth + 1);
      out += json::serialize(json::value(key));
      out += ": ";
      append(out, member, depth + 1);
    }
    if (!object->empty()) append_newline(out, depth);
    out += '}';
  } else if (const auto* array = value.if_array()) {
    out += '[';
    for (bool first = true; const auto& element : *array) {
      if (!first) out += ',';
      first = false;
      append_newline(out, depth + 1);
      append(out, element, depth + 1);
    }
    if (!array->empty()) append_newline(out, depth);
    out += ']';
  } else if (const auto* number = value.if_double()) {
    append_double(out, *number);
  } else {
    out += json::serialize(value);
  }
}

template <class T>
std::string_view kind_name() {
  if constexpr (std::is_same_v<T, bool>) return "true or false";
  if constexpr (std::is_same_v<T, int64_t>) return "a 64-bit integer";
  if constexpr (std::is_same_v<T, double>) return "a number";
  if constexpr (std::is_same_v<T, std::string>) return "a string";
  if constexpr (std::is_same_v<T, json::object>) return "an object";
  if constexpr (std::is_same_v<T, json::array>) return "an array";
}

// False: `value` is of another kind.
template <class T>
bool assign(T& out, const json::value& value) {
  if constexpr (std::is_same_v<T, bool>) {
    return value.is_bool() && (out = value.get_bool(), true);
  } else if constexpr (std::is_same_v<T, int64_t>) {
    return value.is_int64() && (out = value.get_int64(), true);
  } else if constexpr (std::is_same_v<T, double>) {
    if (!value.is_number()) return false;
    out = value.to_number<double>();
    return true;
  } else if constexpr (std::is_same_v<T, std::string>) {
    return value.is_string() && (out = std::string(value.get_string()), true);
  } else if constexpr (std::is_same_v<T, json::object>) {
    return value.is_object() && (out = value.get_object(), true);
  } else {
    return value.is_array() && (out = value.get_array(), true);
  }
}

}  // namespace

json::value parse_json(std::string_view text, const std::string& file, uint64_t base_offset) {
  json::parse_options options;
  options.max_depth = 64;
  json::basic_parser<Builder> parser(options);
  json::error_code ec;
  const size_t consumed = parser.write_some(false, text.data(), text.size(), ec);
  const uint64_t offset = base_offset + consumed;
  if (ec) {
    const std::string& complaint = parser.handler().complaint();
    throw ParseError(file, offset,
                     "invalid JSON: " + (complaint.empty() ? ec.message() : complaint));
  }
  if (consumed < text.size()) throw ParseError(file, offset, "invalid JSON: bytes after its end");
  return parser.handler().release();
}

json::value read_json(const std::filesystem::path& path) {
  return parse_json(read_file(path), path.string());
}

std::string format_json(const json::value& value) {
  std::string out;
  append(out, value, 0);
  out += '\n';
  return out;
}

void write_json(const std::filesystem::path& path, const json::value& value) {
  write_file(path, format_json(value));
}

template <class T>
T json_get(const json::object& object, std::string_view key, const std::string& file) {
  const json::value* value = object.if_contains(key);
  if (value == nullptr) throw_error("{}: key '{}' is missing", file, key);
  T out;
  if (!assign(out, *value)) {
    std::string shown = json::serialize(*value);
    if (shown.size() > 60) shown = shown.substr(0, 60) + "...";
    throw_error("{}: key '{}' must be {}, not {}", file, key, kind_name<T>(), shown);
  }
  return out;
}

template <class T>
T json_get_or(const json::object& object, std::string_view key, T fallback,
              const std::string& file) {
  return object.contains(key) ? json_get<T>(object, key, file) : std::move(fallback);
}

#define HALO_JSON_KIND(T)                                                            \
  template T json_get<T>(const json::object&, std::string_view, const std::string&); \
  template T json_get_or<T>(const json::object&, std::string_view, T, const std::string&);
HALO_JSON_KIND(bool)
HALO_JSON_KIND(int64_t)
HALO_JSON_KIND(double)
HALO_JSON_KIND(std::string)
HALO_JSON_KIND(json::object)
HALO_JSON_KIND(json::array)
#undef HALO_JSON_KIND

}  // namespace halo
