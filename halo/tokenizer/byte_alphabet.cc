#include "halo/tokenizer/byte_alphabet.h"

#include <array>
#include <cstdint>

#include "halo/base/utf8.h"

namespace halo {
namespace {

constexpr int kChars = 0x144;  // 256 + the 68 bytes that do not print

struct Alphabet {
  std::array<char32_t, 256> chars{};
  std::array<int, kChars> bytes{};  // -1: not in the alphabet
};

constexpr Alphabet make_alphabet() {
  Alphabet out;
  out.bytes.fill(-1);
  char32_t next = 0x100;
  for (int byte = 0; byte < 256; ++byte) {
    const bool prints = (byte > 0x20 && byte < 0x7F) || (byte > 0xA0 && byte != 0xAD);
    out.chars[byte] = prints ? static_cast<char32_t>(byte) : next++;
    out.bytes[out.chars[byte]] = byte;
  }
  return out;
}

constexpr Alphabet kAlphabet = make_alphabet();

}  // namespace

std::string bytes_to_alphabet(std::string_view bytes) {
  std::string out;
  for (const char byte : bytes) append_utf8(kAlphabet.chars[static_cast<uint8_t>(byte)], out);
  return out;
}

std::optional<std::string> alphabet_to_bytes(std::string_view text) {
  std::string out;
  for (size_t at = 0; at < text.size();) {
    const Utf8Char c = decode_utf8(text, at);
    const int byte = c.code < kChars ? kAlphabet.bytes[c.code] : -1;
    if (byte < 0) return std::nullopt;
    out.push_back(static_cast<char>(byte));
    at += c.size;
  }
  return out;
}

}  // namespace halo
