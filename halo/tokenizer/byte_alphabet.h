// The alphabet in which byte-level vocabularies are written: one printable character a byte. Bytes
// that print in Latin-1 stand for themselves, the others are U+0100, U+0101, ... in order.
#pragma once

#include <optional>
#include <string>
#include <string_view>

namespace halo {

std::string bytes_to_alphabet(std::string_view bytes);
// Nothing if a character is outside the alphabet.
std::optional<std::string> alphabet_to_bytes(std::string_view text);

}  // namespace halo
