// JSON (Boost.JSON) with the limits untrusted files need, and readers that name what is wrong.
#pragma once

#include <boost/json.hpp>
#include <cstdint>
#include <filesystem>
#include <string>
#include <string_view>

namespace halo {

namespace json = boost::json;

// Integers beyond 64 bits: the double next to them, or an Error.
enum class HugeIntegers { kRounded, kRefused };

// Depth at most 64; a duplicate key (unless both times with the same integer), trailing bytes, bad
// UTF-8 or half a surrogate pair is a ParseError with the offset, to which `base_offset` (where
// `text` begins in `file`) is added.
json::value parse_json(std::string_view text, const std::string& file, uint64_t base_offset = 0,
                       HugeIntegers huge = HugeIntegers::kRounded);
// A file, with or without a byte-order mark.
json::value read_json(const std::filesystem::path& path);

// Two-space indented, keys in insertion order, numbers that read back to the same
// double; NaN and infinity, which JSON lacks, become null.
std::string format_json(const json::value& value);
// Durable and atomic (files.h).
void write_json(const std::filesystem::path& path, const json::value& value);

// object[key] as T (bool, int64_t, double, std::string, json::object, json::array); a missing key
// or another kind is an Error that names file and key. double also takes integers.
template <class T>
T json_get(const json::object& object, std::string_view key, const std::string& file);
// The same, or `fallback` where the key is absent.
template <class T>
T json_get_or(const json::object& object, std::string_view key, T fallback,
              const std::string& file);

}  // namespace halo
