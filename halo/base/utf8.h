// UTF-8 read with the replacement rule of the Unicode standard (D93b), which Rust's
// from_utf8_lossy follows: each maximal prefix of a well-formed sequence becomes one U+FFFD.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

namespace halo {

struct Utf8Char {
  char32_t code;   // U+FFFD where the bytes are no character
  size_t size;     // bytes taken, at least 1
  bool valid;      // the bytes are a character
  bool truncated;  // the text ended inside a character that was well-formed so far
};

// The character at text[at], at < text.size().
Utf8Char decode_utf8(std::string_view text, size_t at);

// The character at text[at] of well-formed text, and where the next one begins.
struct CodeAt {
  char32_t code;
  size_t end;
};
inline CodeAt code_at(std::string_view text, size_t at) {
  const auto byte = [&](size_t i) { return static_cast<uint8_t>(text[at + i]); };
  const auto tail = [&](size_t i) { return static_cast<char32_t>(byte(i) & 0x3F); };
  const char32_t lead = byte(0);
  if (lead < 0x80) return {lead, at + 1};
  if (lead < 0xE0) return {(lead & 0x1F) << 6 | tail(1), at + 2};
  if (lead < 0xF0) return {(lead & 0x0F) << 12 | tail(1) << 6 | tail(2), at + 3};
  return {(lead & 0x07) << 18 | tail(1) << 12 | tail(2) << 6 | tail(3), at + 4};
}
// Where the character before text[at] begins, at > 0, in well-formed text.
inline size_t code_before(std::string_view text, size_t at) {
  do {
    --at;
  } while ((static_cast<uint8_t>(text[at]) & 0xC0) == 0x80);
  return at;
}

void append_utf8(char32_t code, std::string& out);

// Bytes of `text` before the first that is no part of a well-formed character.
size_t valid_utf8_prefix(std::string_view text);
inline bool is_utf8(std::string_view text) {
  return valid_utf8_prefix(text) == text.size();
}

// The text with ill-formed bytes replaced.
std::string replace_invalid_utf8(std::string_view text);
// The same; a copy, in `buffer`, only if there are any.
std::string_view replace_invalid_utf8(std::string_view text, std::string& buffer);

// Bytes at the end of `text` that are the start of a character and wait for the rest: 0..3.
size_t incomplete_utf8_tail(std::string_view text);

}  // namespace halo
