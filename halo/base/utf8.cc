#include "halo/base/utf8.h"

#include <algorithm>
#include <cstdint>
#include <cstring>

namespace halo {
namespace {

constexpr char32_t kReplacement = 0xFFFD;

}  // namespace

Utf8Char decode_utf8(std::string_view text, size_t at) {
  const auto byte = [&](size_t i) { return static_cast<uint8_t>(text[i]); };
  const uint8_t lead = byte(at);
  if (lead < 0x80) return {lead, 1, true, false};
  if (lead < 0xC2 || lead > 0xF4) return {kReplacement, 1, false, false};
  const size_t size = lead < 0xE0 ? 2 : lead < 0xF0 ? 3 : 4;
  // The second byte's range excludes overlong forms, surrogates and codes above U+10FFFF.
  uint8_t low = lead == 0xE0 ? 0xA0 : lead == 0xF0 ? 0x90 : 0x80;
  uint8_t high = lead == 0xED ? 0x9F : lead == 0xF4 ? 0x8F : 0xBF;
  char32_t code = lead & (0x7F >> size);
  for (size_t i = 1; i < size; ++i) {
    if (at + i == text.size()) return {kReplacement, i, false, true};
    if (byte(at + i) < low || byte(at + i) > high) return {kReplacement, i, false, false};
    code = code << 6 | (byte(at + i) & 0x3F);
    low = 0x80;
    high = 0xBF;
  }
  return {code, size, true, false};
}

void append_utf8(char32_t code, std::string& out) {
  const auto continuation = [&](int shift) {
    out.push_back(static_cast<char>(0x80 | (code >> shift & 0x3F)));
  };
  if (code < 0x80) {
    out.push_back(static_cast<char>(code));
  } else if (code < 0x800) {
    out.push_back(static_cast<char>(0xC0 | code >> 6));
    continuation(0);
  } else if (code < 0x10000) {
    out.push_back(static_cast<char>(0xE0 | code >> 12));
    continuation(6);
    continuation(0);
  } else {
    out.push_back(static_cast<char>(0xF0 | code >> 18));
    continuation(12);
    continuation(6);
    continuation(0);
  }
}

size_t valid_utf8_prefix(std::string_view text) {
  size_t at = 0;
  while (at < text.size()) {
    // Eight bytes below 0x80 at once.
    uint64_t word;
    if (text.size() - at >= sizeof word) {
      std::memcpy(&word, text.data() + at, sizeof word);
      if ((word & 0x8080808080808080) == 0) {
        at += sizeof word;
        continue;
      }
    }
    const Utf8Char c = decode_utf8(text, at);
    if (!c.valid) break;
    at += c.size;
  }
  return at;
}

std::string_view replace_invalid_utf8(std::string_view text, std::string& buffer) {
  size_t at = valid_utf8_prefix(text);
  if (at == text.size()) return text;
  buffer.assign(text, 0, at);
  while (at < text.size()) {
    const Utf8Char c = decode_utf8(text, at);
    append_utf8(c.code, buffer);
    at += c.size;
    const size_t valid = valid_utf8_prefix(text.substr(at));
    buffer.append(text, at, valid);
    at += valid;
  }
  return buffer;
}

std::string replace_invalid_utf8(std::string_view text) {
  std::string buffer;
  return std::string(replace_invalid_utf8(text, buffer));
}

size_t incomplete_utf8_tail(std::string_view text) {
  for (size_t size = 1; size <= std::min<size_t>(3, text.size()); ++size) {
    const size_t at = text.size() - size;
    const Utf8Char c = decode_utf8(text, at);
    if (c.truncated && c.size == size) return size;
  }
  return 0;
}

}  // namespace halo
