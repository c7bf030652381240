// A handler for Boost.JSON's event parser that builds the value and refuses what boost::json::parse
// lets through: duplicate keys, and numbers a double cannot hold. Vocabularies of some writers have
// a token twice with its one id, so that the same integer again is no contradiction.
#include "halo/base/json.h"

#include <algorithm>
#include <boost/json/basic_parser_impl.hpp>
#include <charconv>
#include <cmath>
#include <cstdint>
#include <optional>
#include <system_error>
#include <type_traits>
#include <unordered_map>
#include <utility>
#include <vector>

#include "halo/base/check.h"
#include "halo/base/files.h"
#include "halo/base/json_text.h"
#include "halo/base/text.h"

namespace halo {
namespace {

class Builder {
 public:
  static constexpr size_t max_object_size = -1, max_array_size = -1;
  static constexpr size_t max_key_size = -1, max_string_size = -1;

  explicit Builder(HugeIntegers huge) : huge_(huge) { stack_.reset(); }
  json::value release() { return stack_.release(); }
  // What the handler itself objected to; empty where the grammar did.
  const std::string& complaint() const { return complaint_; }

  bool on_document_begin(json::error_code&) { return true; }
  bool on_document_end(json::error_code&) { return true; }
  bool on_object_begin(json::error_code& ec) {
    if (!on_value(std::nullopt, ec)) return false;
    keys_.emplace_back();
    return true;
  }
  bool on_object_end(size_t n, json::error_code&) {
    keys_.pop_back();
    stack_.push_object(n);
    return true;
  }
  bool on_array_begin(json::error_code& ec) { return on_value(std::nullopt, ec); }
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
    const auto [entry, is_new] = keys_.back().try_emplace(key_);
    if (!is_new && !entry->second) return refuse(fmt::format("duplicate key '{}'", key_), ec);
    entry_ = &*entry;
    is_duplicate_ = !is_new;
    stack_.push_key(key_);
    key_.clear();
    return true;
  }
  bool on_string_part(json::string_view s, size_t, json::error_code& ec) {
    if (!on_value(std::nullopt, ec)) return false;
    stack_.push_chars(s);
    return true;
  }
  bool on_string(json::string_view s, size_t, json::error_code& ec) {
    if (!on_value(std::nullopt, ec)) return false;
    stack_.push_string(s);
    return true;
  }
  bool on_number_part(json::string_view s, json::error_code&) {
    number_.append(s.data(), s.size());
    return true;
  }
  bool on_int64(int64_t i, json::string_view, json::error_code& ec) {
    if (!on_value(i, ec)) return false;
    number_.clear();
    stack_.push_int64(i);
    return true;
  }
  bool on_uint64(uint64_t u, json::string_view, json::error_code& ec) {
    if (!on_value(std::nullopt, ec)) return false;
    number_.clear();
    stack_.push_uint64(u);
    return true;
  }
  // Boost 1.81 rounds some decimals to a neighbour of the nearest double; from_chars does not.
  bool on_double(double approximate, json::string_view s, json::error_code& ec) {
    if (!on_value(std::nullopt, ec)) return false;
    number_.append(s.data(), s.size());
    if (huge_ == HugeIntegers::kRefused && number_.find_first_of(".eE") == std::string::npos)
      return refuse(fmt::format("the integer {} has more than 64 bits", number_), ec);
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
  bool on_bool(bool b, json::error_code& ec) {
    if (!on_value(std::nullopt, ec)) return false;
    stack_.push_bool(b);
    return true;
  }
  bool on_null(json::error_code& ec) {
    if (!on_value(std::nullopt, ec)) return false;
    stack_.push_null();
    return true;
  }
  bool on_comment_part(json::string_view, json::error_code&) { return true; }
  bool on_comment(json::string_view, json::error_code&) { return true; }

 private:
  // Before a value: an integer, or of another kind.
  bool on_value(std::optional<int64_t> integer, json::error_code& ec) {
    if (entry_ == nullptr) return true;  // of an array, or the rest of a string
    auto& [key, known] = *std::exchange(entry_, nullptr);
    if (is_duplicate_ && known != integer)
      return refuse(fmt::format("duplicate key '{}'", key), ec);
    known = integer;
    return true;
  }

  bool refuse(std::string complaint, json::error_code& ec) {
    complaint_ = std::move(complaint);
    ec = json::error::syntax;
    return false;
  }

  // The keys of an object with those of their values that are integers.
  using Keys = std::unordered_map<std::string, std::optional<int64_t>>;

  HugeIntegers huge_;
  json::value_stack stack_;
  std::vector<Keys> keys_;             // of the objects being read
  Keys::value_type* entry_ = nullptr;  // whose value comes next
  bool is_duplicate_ = false;          // the key of entry_ was there before
  std::string key_, number_;           // parts seen so far
  std::string complaint_;
};

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

// The escape of half a surrogate pair near text[at], as it is written there; empty: there is none.
std::string_view half_surrogate_near(std::string_view text, size_t at) {
  constexpr size_t kEscape = 6;  // bytes of \u0000
  const auto unit_at = [&](size_t i) -> uint32_t {
    uint32_t unit = 0;
    const char* end = text.data() + std::min(text.size(), i + kEscape);
    if (i + kEscape > text.size() || text.substr(i, 2) != "\\u" ||
        std::from_chars(text.data() + i + 2, end, unit, 16).ptr != end)
      return 0;
    return unit;
  };
  const auto is_in = [](uint32_t unit, uint32_t first) {
    return unit >= first && unit < first + 0x400;
  };
  for (size_t i = at - std::min(at, 2 * kEscape); i <= at && i < text.size(); ++i) {
    const uint32_t unit = unit_at(i);
    const bool is_first = is_in(unit, 0xD800), is_second = is_in(unit, 0xDC00);
    const bool is_whole = is_first       ? is_in(unit_at(i + kEscape), 0xDC00)
                          : i >= kEscape ? is_in(unit_at(i - kEscape), 0xD800)
                                         : false;
    if ((is_first || is_second) && !is_whole) return text.substr(i, kEscape);
  }
  return {};
}

// Why `text` is no JSON from text[at] on, in more words than the parser's.
std::optional<ParseError> bad_text_near(std::string_view text, size_t at, const std::string& file,
                                        uint64_t base_offset) {
  constexpr size_t kNear = 4;  // bytes of a character
  // Twice as many, for the end that is looked at may cut one.
  const auto bad = invalid_utf8_at(text.substr(0, at + 2 * kNear));
  if (bad && *bad < at + kNear)
    return ParseError(file, base_offset + *bad,
                      "invalid JSON: " + describe_invalid_utf8(text, *bad));
  const std::string_view half = half_surrogate_near(text, at);
  if (half.empty()) return std::nullopt;
  return ParseError(
      file, base_offset + (half.data() - text.data()),
      fmt::format("invalid JSON: {} is half a surrogate pair and no character", half));
}

}  // namespace

json::value parse_json(std::string_view text, const std::string& file, uint64_t base_offset,
                       HugeIntegers huge) {
  json::parse_options options;
  options.max_depth = 64;
  json::basic_parser<Builder> parser(options, huge);
  json::error_code ec;
  const size_t consumed = parser.write_some(false, text.data(), text.size(), ec);
  const uint64_t offset = base_offset + consumed;
  if (ec) {
    const std::string& complaint = parser.handler().complaint();
    if (complaint.empty()) {
      if (const auto error = bad_text_near(text, consumed, file, base_offset)) throw *error;
    }
    throw ParseError(file, offset,
                     "invalid JSON: " + (complaint.empty() ? ec.message() : complaint));
  }
  if (consumed < text.size()) throw ParseError(file, offset, "invalid JSON: bytes after its end");
  return parser.handler().release();
}

json::value read_json(const std::filesystem::path& path) {
  return parse_json(read_text_file(path), path.string());
}

std::string format_json(const json::value& value) {
  std::string out;
  append_json(out, value, 0);
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
