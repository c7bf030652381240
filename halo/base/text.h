// Text that others wrote: byte-order marks, and where and why bytes are no UTF-8.
#pragma once

#include <cstddef>
#include <filesystem>
#include <optional>
#include <string>
#include <string_view>

namespace halo {

// `text`, the beginning of a file, without the byte-order mark of UTF-8. An Error where it begins
// with a mark of UTF-16 or UTF-32.
std::string_view without_byte_order_mark(std::string_view text, const std::string& file);

// A file of text: read_file (files.h) without the mark.
std::string read_text_file(const std::filesystem::path& path,
                           uint64_t max_bytes = uint64_t{1} << 32);

// Where the first bytes begin that are no part of a UTF-8 character; none: there are no such.
std::optional<size_t> invalid_utf8_at(std::string_view text);
// "the bytes E9 22 are no UTF-8 (Latin-1?)" of the bytes at `at`.
std::string describe_invalid_utf8(std::string_view text, size_t at);

}  // namespace halo
