#include "halo/base/text.h"

#include <algorithm>
#include <array>
#include <cstdint>
#include <utility>

#include "halo/base/check.h"
#include "halo/base/files.h"
#include "halo/base/utf8.h"

namespace halo {
namespace {

constexpr std::string_view kUtf8Mark = "\xEF\xBB\xBF";
// The mark of UTF-32, little-endian, begins with that of UTF-16.
constexpr std::array<std::pair<std::string_view, const char*>, 4> kOtherMarks = {{
    {{"\xFF\xFE\0\0", 4}, "UTF-32"},
    {{"\0\0\xFE\xFF", 4}, "UTF-32"},
    {"\xFF\xFE", "UTF-16"},
    {"\xFE\xFF", "UTF-16"},
}};

uint8_t byte_at(std::string_view text, size_t at) {
  return static_cast<uint8_t>(text[at]);
}

}  // namespace

std::string_view without_byte_order_mark(std::string_view text, const std::string& file) {
  if (text.starts_with(kUtf8Mark)) return text.substr(kUtf8Mark.size());
  for (const auto& [mark, name] : kOtherMarks) {
    if (text.starts_with(mark)) {
      throw ParseError(
          file, 0, fmt::format("begins with the byte-order mark of {}; convert it to UTF-8", name));
    }
  }
  return text;
}

std::string read_text_file(const std::filesystem::path& path, uint64_t max_bytes) {
  std::string text = read_file(path, max_bytes);
  const size_t mark = text.size() - without_byte_order_mark(text, path.string()).size();
  if (mark > 0) text.erase(0, mark);
  return text;
}

std::optional<size_t> invalid_utf8_at(std::string_view text) {
  const size_t valid = valid_utf8_prefix(text);
  return valid == text.size() ? std::nullopt : std::optional(valid);
}

std::string describe_invalid_utf8(std::string_view text, size_t at) {
  constexpr size_t kShown = 4;
  std::string shown;
  for (size_t i = at; i < std::min(text.size(), at + kShown); ++i) {
    if (i > at && byte_at(text, i) < 0x80) break;
    shown += fmt::format(" {:02X}", byte_at(text, i));
  }
  // In Latin-1 and Windows-1252 a letter beyond ASCII stands alone between ASCII bytes.
  const bool is_alone = at + 1 == text.size() || byte_at(text, at + 1) < 0x80;
  const bool is_one = shown.size() == 3;
  return fmt::format("the byte{}{} {} no UTF-8{}", is_one ? "" : "s", shown, is_one ? "is" : "are",
                     is_alone && byte_at(text, at) >= 0xA0 ? " (Latin-1 or Windows-1252?)" : "");
}

}  // namespace halo
