// UTF-8 read with the replacement rule of the Unicode standard (D93b), which Rust's
// from_utf8_lossy follows: each maximal prefix of a well-formed sequence becomes one U+FFFD.
#pragma once

#include <cstddef>
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

void append_utf8(char32_t code, std::string& out);

// The text with ill-formed bytes replaced.
std::string replace_invalid_utf8(std::string_view text);

// Bytes at the end of `text` that are the start of a character and wait for the rest: 0..3.
size_t incomplete_utf8_tail(std::string_view text);

}  // namespace halo
