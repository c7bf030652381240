// utf8proc gives the character data and the composition pass. Its own decomposition sorts combining
// marks by exchanging neighbours, quadratic in the length of a run, so marks are sorted here.
#include "halo/tokenizer/normalize.h"

#include <utf8proc.h>

#include <algorithm>
#include <array>
#include <vector>

#include "halo/base/check.h"
#include "halo/tokenizer/utf8.h"

namespace halo {
namespace {

int combining_class(utf8proc_int32_t code) {
  return utf8proc_get_property(code)->combining_class;
}

void sort_marks(std::vector<utf8proc_int32_t>& codes) {
  const auto is_mark = [](utf8proc_int32_t code) { return combining_class(code) != 0; };
  for (auto begin = codes.begin(); begin != codes.end();) {
    begin = std::find_if(begin, codes.end(), is_mark);
    const auto end = std::find_if_not(begin, codes.end(), is_mark);
    std::stable_sort(begin, end, [](utf8proc_int32_t a, utf8proc_int32_t b) {
      return combining_class(a) < combining_class(b);
    });
    begin = end;
  }
}

void append_composed(std::string_view text, std::string& out) {
  constexpr auto kStable = static_cast<int>(UTF8PROC_STABLE);
  std::vector<utf8proc_int32_t> codes;
  codes.reserve(text.size() / 2);
  std::array<utf8proc_int32_t, 16> parts;  // no canonical decomposition is longer than 4
  for (size_t at = 0; at < text.size();) {
    const Utf8Char c = decode_utf8(text, at);
    int boundary = 0;
    const auto count = utf8proc_decompose_char(
        static_cast<utf8proc_int32_t>(c.code), parts.data(), parts.size(),
        static_cast<utf8proc_option_t>(kStable | UTF8PROC_DECOMPOSE), &boundary);
    HALO_CHECK(count >= 0 && count <= static_cast<int64_t>(parts.size()),
               "normalize_nfc: U+{:04X} has no decomposition", static_cast<uint32_t>(c.code));
    codes.insert(codes.end(), parts.begin(), parts.begin() + count);
    at += c.size;
  }
  sort_marks(codes);
  // utf8proc takes U+11A7, the code before the first final jamo, for a final jamo that adds nothing
  // and drops it after a syllable. It joins nothing before it, so composition starts anew there.
  for (auto begin = codes.begin(); begin != codes.end();) {
    const auto end = std::find(begin + 1, codes.end(), 0x11A7);
    const auto size = utf8proc_normalize_utf32(
        &*begin, end - begin, static_cast<utf8proc_option_t>(kStable | UTF8PROC_COMPOSE));
    HALO_CHECK(size >= 0, "normalize_nfc: {}", utf8proc_errmsg(size));
    std::for_each(begin, begin + size, [&](auto code) { append_utf8(code, out); });
    begin = end;
  }
}

}  // namespace

std::string normalize_nfc(std::string_view text) {
  // Characters below U+0300 (lead byte below 0xCC) are in form C and never join the one before
  // them: they are copied, except the last before a higher one, which may be its base.
  const auto lead = [&](size_t at) { return static_cast<uint8_t>(text[at]); };
  const auto is_low = [&](size_t at) { return lead(at) < 0xCC; };
  std::string out;
  out.reserve(text.size());
  size_t copied = 0, previous = 0;
  for (size_t at = 0; at < text.size();) {
    if (is_low(at)) {
      previous = at;
      at += lead(at) < 0x80 ? 1 : 2;
      continue;
    }
    const size_t begin = previous;
    while (at < text.size() && !is_low(at)) at += lead(at) < 0xE0 ? 2 : lead(at) < 0xF0 ? 3 : 4;
    out.append(text, copied, begin - copied);
    append_composed(text.substr(begin, at - begin), out);
    copied = previous = at;
  }
  return out.append(text, copied);
}

}  // namespace halo
