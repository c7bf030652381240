// What tokenizers ask about a character. The answers are those of the versions of Unicode that the
// reference uses, whatever utf8proc is installed: docs/decisions/unicode-versions.md.
#pragma once

#include <array>
#include <cstdint>
#include <vector>

namespace halo {

// \r and \n are spaces too (\s).
enum class CharClass : uint8_t { kLetter, kNumber, kNewline, kSpace, kOther };

namespace detail {

constexpr CharClass classify_ascii(char32_t code) {
  if ((code | 0x20) >= 'a' && (code | 0x20) <= 'z') return CharClass::kLetter;
  if (code >= '0' && code <= '9') return CharClass::kNumber;
  if (code == '\r' || code == '\n') return CharClass::kNewline;
  if (code == ' ' || (code >= '\t' && code <= '\r')) return CharClass::kSpace;
  return CharClass::kOther;
}

inline constexpr auto kAsciiClasses = [] {
  std::array<CharClass, 128> out{};
  for (char32_t code = 0; code < 128; ++code) out[code] = classify_ascii(code);
  return out;
}();

// A byte a character, in blocks of 256, those that are equal stored once.
struct CharTable {
  std::array<uint16_t, 0x1100> block{};
  std::vector<std::array<uint8_t, 256>> blocks;

  static const CharTable& get();
  uint8_t operator[](char32_t code) const { return blocks[block[code >> 8]][code & 0xFF]; }
};

inline constexpr uint8_t kClassBits = 0x07;
inline constexpr uint8_t kWordBit = 0x08;
inline constexpr uint8_t kInertBit = 0x10;
inline constexpr uint8_t kYoungBit = 0x20;

}  // namespace detail

// \p{L}, \p{N} and \s of Unicode 16. Here and below code <= 0x10FFFF.
inline CharClass char_class(char32_t code) {
  return code < 128 ? detail::kAsciiClasses[code]
                    : static_cast<CharClass>(detail::CharTable::get()[code] & detail::kClassBits);
}
inline bool is_space(char32_t code) {
  const CharClass kind = char_class(code);
  return kind == CharClass::kSpace || kind == CharClass::kNewline;
}
// General category N of Unicode 17.
inline bool is_numeric(char32_t code) {
  return char_class(code) == CharClass::kNumber || (code >= 0x11DE0 && code <= 0x11DE9) ||
         (code >= 0x16FF4 && code <= 0x16FF6);
}
// \w of Unicode 16.
inline bool is_word(char32_t code) {
  return (detail::CharTable::get()[code] & detail::kWordBit) != 0;
}
// Form C leaves it alone wherever it stands, unless a character follows that is not inert.
inline bool is_nfc_inert(char32_t code) {
  return code < 0x300 || (detail::CharTable::get()[code] & detail::kInertBit) != 0;
}
// Its normalisation data came after Unicode 9, so that the normal forms take it for a character
// that has none.
inline bool is_young(char32_t code) {
  return code >= 0x300 && (detail::CharTable::get()[code] & detail::kYoungBit) != 0;
}
// Combining class, 0 for young characters.
int combining_class(char32_t code);
// Lower case of Unicode 17, of one character alone; only U+0130 has two.
std::array<char32_t, 2> to_lower(char32_t code);  // {lower, 0 or a second one}

}  // namespace halo
