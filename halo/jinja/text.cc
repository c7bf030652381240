#include "halo/jinja/text.h"

#include <utf8proc.h>

#include <algorithm>
#include <cstring>
#include <iterator>

#include "halo/base/check.h"
#include "halo/base/utf8.h"

namespace halo::jinja {
namespace {

// Characters whose upper case is several characters, each before what it becomes (Unicode's
// SpecialCasing, the entries without conditions).
constexpr std::string_view kLongUpper[] = {
    "\u00dfSS",
    "\u0149\u02bcN",
    "\u01f0J\u030c",
    "\u0390\u0399\u0308\u0301",
    "\u03b0\u03a5\u0308\u0301",
    "\u0587\u0535\u0552",
    "\u1e96H\u0331",
    "\u1e97T\u0308",
    "\u1e98W\u030a",
    "\u1e99Y\u030a",
    "\u1e9aA\u02be",
    "\u1f50\u03a5\u0313",
    "\u1f52\u03a5\u0313\u0300",
    "\u1f54\u03a5\u0313\u0301",
    "\u1f56\u03a5\u0313\u0342",
    "\u1f80\u1f08\u0399",
    "\u1f81\u1f09\u0399",
    "\u1f82\u1f0a\u0399",
    "\u1f83\u1f0b\u0399",
    "\u1f84\u1f0c\u0399",
    "\u1f85\u1f0d\u0399",
    "\u1f86\u1f0e\u0399",
    "\u1f87\u1f0f\u0399",
    "\u1f88\u1f08\u0399",
    "\u1f89\u1f09\u0399",
    "\u1f8a\u1f0a\u0399",
    "\u1f8b\u1f0b\u0399",
    "\u1f8c\u1f0c\u0399",
    "\u1f8d\u1f0d\u0399",
    "\u1f8e\u1f0e\u0399",
    "\u1f8f\u1f0f\u0399",
    "\u1f90\u1f28\u0399",
    "\u1f91\u1f29\u0399",
    "\u1f92\u1f2a\u0399",
    "\u1f93\u1f2b\u0399",
    "\u1f94\u1f2c\u0399",
    "\u1f95\u1f2d\u0399",
    "\u1f96\u1f2e\u0399",
    "\u1f97\u1f2f\u0399",
    "\u1f98\u1f28\u0399",
    "\u1f99\u1f29\u0399",
    "\u1f9a\u1f2a\u0399",
    "\u1f9b\u1f2b\u0399",
    "\u1f9c\u1f2c\u0399",
    "\u1f9d\u1f2d\u0399",
    "\u1f9e\u1f2e\u0399",
    "\u1f9f\u1f2f\u0399",
    "\u1fa0\u1f68\u0399",
    "\u1fa1\u1f69\u0399",
    "\u1fa2\u1f6a\u0399",
    "\u1fa3\u1f6b\u0399",
    "\u1fa4\u1f6c\u0399",
    "\u1fa5\u1f6d\u0399",
    "\u1fa6\u1f6e\u0399",
    "\u1fa7\u1f6f\u0399",
    "\u1fa8\u1f68\u0399",
    "\u1fa9\u1f69\u0399",
    "\u1faa\u1f6a\u0399",
    "\u1fab\u1f6b\u0399",
    "\u1fac\u1f6c\u0399",
    "\u1fad\u1f6d\u0399",
    "\u1fae\u1f6e\u0399",
    "\u1faf\u1f6f\u0399",
    "\u1fb2\u1fba\u0399",
    "\u1fb3\u0391\u0399",
    "\u1fb4\u0386\u0399",
    "\u1fb6\u0391\u0342",
    "\u1fb7\u0391\u0342\u0399",
    "\u1fbc\u0391\u0399",
    "\u1fc2\u1fca\u0399",
    "\u1fc3\u0397\u0399",
    "\u1fc4\u0389\u0399",
    "\u1fc6\u0397\u0342",
    "\u1fc7\u0397\u0342\u0399",
    "\u1fcc\u0397\u0399",
    "\u1fd2\u0399\u0308\u0300",
    "\u1fd3\u0399\u0308\u0301",
    "\u1fd6\u0399\u0342",
    "\u1fd7\u0399\u0308\u0342",
    "\u1fe2\u03a5\u0308\u0300",
    "\u1fe3\u03a5\u0308\u0301",
    "\u1fe4\u03a1\u0313",
    "\u1fe6\u03a5\u0342",
    "\u1fe7\u03a5\u0308\u0342",
    "\u1ff2\u1ffa\u0399",
    "\u1ff3\u03a9\u0399",
    "\u1ff4\u038f\u0399",
    "\u1ff6\u03a9\u0342",
    "\u1ff7\u03a9\u0342\u0399",
    "\u1ffc\u03a9\u0399",
    "\ufb00FF",
    "\ufb01FI",
    "\ufb02FL",
    "\ufb03FFI",
    "\ufb04FFL",
    "\ufb05ST",
    "\ufb06ST",
    "\ufb13\u0544\u0546",
    "\ufb14\u0544\u0535",
    "\ufb15\u0544\u053b",
    "\ufb16\u054e\u0546",
    "\ufb17\u0544\u053d",
};

const std::string_view* long_upper(std::string_view character) {
  const auto* found = std::ranges::find_if(
      kLongUpper, [&](std::string_view entry) { return entry.starts_with(character); });
  return found == std::end(kLongUpper) ? nullptr : found;
}

utf8proc_category_t category(char32_t code) {
  return utf8proc_category(static_cast<utf8proc_int32_t>(code));
}

void append_upper(std::string_view character, char32_t code, std::string& out) {
  if (const std::string_view* entry = code < 0x80 ? nullptr : long_upper(character)) {
    out += entry->substr(character.size());
  } else {
    append_utf8(utf8proc_toupper(static_cast<utf8proc_int32_t>(code)), out);
  }
}

void append_title(std::string_view character, char32_t code, std::string& out) {
  const auto simple = static_cast<char32_t>(utf8proc_totitle(static_cast<utf8proc_int32_t>(code)));
  if (code >= 0x80 && simple == code && long_upper(character)) {
    throw_error("the title case of '{}' is several characters, which is not supported", character);
  }
  append_utf8(simple, out);
}

bool is_case_ignorable(char32_t code) {
  switch (category(code)) {
    case UTF8PROC_CATEGORY_MN:
    case UTF8PROC_CATEGORY_ME:
    case UTF8PROC_CATEGORY_CF:
    case UTF8PROC_CATEGORY_LM:
    case UTF8PROC_CATEGORY_SK:
      return true;
    default:
      return std::u32string_view(U"'.:\u00b7\u0387\u055f\u05f4\u2018\u2019\u2024\u2027")
                 .find(code) != std::u32string_view::npos;
  }
}

// Sigma ends a word where a cased letter is before it and none behind it.
bool is_final_sigma(std::string_view text, size_t at, size_t size) {
  bool cased_before = false;
  for (size_t end = at; end > 0;) {
    size_t begin = end - 1;
    while (begin > 0 && (text[begin] & 0xC0) == 0x80) --begin;
    const char32_t code = decode_utf8(text, begin).code;
    if (!is_case_ignorable(code)) {
      cased_before = case_of(code) != Case::kNone;
      break;
    }
    end = begin;
  }
  if (!cased_before) return false;
  for (size_t next = at + size; next < text.size();) {
    const Utf8Char c = decode_utf8(text, next);
    if (!is_case_ignorable(c.code)) return case_of(c.code) == Case::kNone;
    next += c.size;
  }
  return true;
}

void append_lower(std::string_view text, size_t at, const Utf8Char& c, std::string& out) {
  if (c.code == 0x130) {
    out += "i\u0307";
  } else if (c.code == 0x3A3) {
    out += is_final_sigma(text, at, c.size) ? "\u03c2" : "\u03c3";
  } else {
    append_utf8(utf8proc_tolower(static_cast<utf8proc_int32_t>(c.code)), out);
  }
}

// change(character, its decoding, offset, out) for each character.
template <class Change>
std::string changed(std::string_view text, Change change) {
  std::string out;
  out.reserve(text.size());
  for (size_t at = 0; at < text.size();) {
    const Utf8Char c = decode_utf8(text, at);
    change(text.substr(at, c.size), c, at, out);
    at += c.size;
  }
  return out;
}

// Bytes of the line end at text[at]; 0 where there is none.
size_t line_end(std::string_view text, size_t at) {
  const auto byte = static_cast<unsigned char>(text[at]);
  if (byte == '\r') return at + 1 < text.size() && text[at + 1] == '\n' ? 2 : 1;
  if ((byte >= '\n' && byte <= '\f') || (byte >= 0x1C && byte <= 0x1E)) return 1;
  if (byte == 0xC2 && text.substr(at, 2) == "\xC2\x85") return 2;
  const std::string_view three = text.substr(at, 3);
  if (byte == 0xE2 && (three == "\xE2\x80\xA8" || three == "\xE2\x80\xA9")) return 3;
  return 0;
}

}  // namespace

size_t num_characters(std::string_view text) {
  return std::ranges::count_if(text, [](char byte) { return (byte & 0xC0) != 0x80; });
}

size_t character_offset(std::string_view text, size_t index) {
  for (size_t at = 0; at < text.size(); ++at) {
    if ((text[at] & 0xC0) != 0x80 && index-- == 0) return at;
  }
  return text.size();
}

std::vector<std::string_view> characters(std::string_view text) {
  std::vector<std::string_view> out;
  for (size_t at = 0; at < text.size();) {
    const size_t size = decode_utf8(text, at).size;
    out.push_back(text.substr(at, size));
    at += size;
  }
  return out;
}

bool is_space(char32_t code) {
  if (code <= 0xFF) {
    return (code >= 9 && code <= 13) || (code >= 0x1C && code <= 0x20) || code == 0x85 ||
           code == 0xA0;
  }
  return code == 0x1680 || (code >= 0x2000 && code <= 0x200A) || code == 0x2028 || code == 0x2029 ||
         code == 0x202F || code == 0x205F || code == 0x3000;
}

bool is_printable(char32_t code) {
  switch (category(code)) {
    case UTF8PROC_CATEGORY_CC:
    case UTF8PROC_CATEGORY_CF:
    case UTF8PROC_CATEGORY_CS:
    case UTF8PROC_CATEGORY_CO:
    case UTF8PROC_CATEGORY_CN:
    case UTF8PROC_CATEGORY_ZL:
    case UTF8PROC_CATEGORY_ZP:
      return false;
    case UTF8PROC_CATEGORY_ZS:
      return code == ' ';
    default:
      return true;
  }
}

Case case_of(char32_t code) {
  const auto signed_code = static_cast<utf8proc_int32_t>(code);
  switch (category(code)) {
    case UTF8PROC_CATEGORY_LU:
      return Case::kUpper;
    case UTF8PROC_CATEGORY_LL:
      return Case::kLower;
    case UTF8PROC_CATEGORY_LT:
      return Case::kTitle;
    default:  // circled letters, Roman numerals
      if (utf8proc_tolower(signed_code) != signed_code) return Case::kUpper;
      return utf8proc_toupper(signed_code) != signed_code ? Case::kLower : Case::kNone;
  }
}

bool is_letter(char32_t code) {
  const auto c = category(code);
  return c >= UTF8PROC_CATEGORY_LU && c <= UTF8PROC_CATEGORY_LO;
}

bool is_decimal_digit(char32_t code) {
  return category(code) == UTF8PROC_CATEGORY_ND;
}

bool is_digit(char32_t code) {
  if (is_decimal_digit(code)) return true;
  // Numeric_Type=Digit: superscripts, subscripts, circled and other digits of category No.
  return category(code) == UTF8PROC_CATEGORY_NO &&
         (code == 0xB2 || code == 0xB3 || code == 0xB9 || (code >= 0x1369 && code <= 0x1371) ||
          code == 0x19DA || code == 0x2070 || (code >= 0x2074 && code <= 0x2079) ||
          (code >= 0x2080 && code <= 0x2089) || (code >= 0x2460 && code <= 0x2468) ||
          (code >= 0x2474 && code <= 0x247C) || (code >= 0x2488 && code <= 0x2490) ||
          code == 0x24EA || (code >= 0x24F5 && code <= 0x24FD) || code == 0x24FF ||
          (code >= 0x2776 && code <= 0x277E) || (code >= 0x2780 && code <= 0x2788) ||
          (code >= 0x278A && code <= 0x2792) || (code >= 0x10A40 && code <= 0x10A43) ||
          (code >= 0x10E60 && code <= 0x10E68) || (code >= 0x11052 && code <= 0x1105A) ||
          (code >= 0x1F100 && code <= 0x1F10A));
}

bool is_numeric(char32_t code) {
  const auto c = category(code);
  return c >= UTF8PROC_CATEGORY_ND && c <= UTF8PROC_CATEGORY_NO;
}

std::string_view strip(std::string_view text, std::optional<std::string_view> chars, Side side) {
  std::u32string set;
  for (size_t at = 0; chars && at < chars->size();) {
    const Utf8Char c = decode_utf8(*chars, at);
    set += c.code;
    at += c.size;
  }
  std::ranges::sort(set);
  const auto goes = [&](char32_t code) {
    return chars ? std::ranges::binary_search(set, code) : is_space(code);
  };
  while (side != Side::kRight && !text.empty()) {
    const Utf8Char c = decode_utf8(text, 0);
    if (!goes(c.code)) break;
    text.remove_prefix(c.size);
  }
  while (side != Side::kLeft && !text.empty()) {
    size_t begin = text.size() - 1;
    while (begin > 0 && (text[begin] & 0xC0) == 0x80) --begin;
    if (!goes(decode_utf8(text, begin).code)) break;
    text.remove_suffix(text.size() - begin);
  }
  return text;
}

size_t find_text(std::string_view text, std::string_view needle, size_t from) {
  if (from > text.size()) return npos;
  if (needle.empty()) return from;
  // Two-way search; std::string_view::find is quadratic.
  const void* found = memmem(text.data() + from, text.size() - from, needle.data(), needle.size());
  return found ? static_cast<const char*>(found) - text.data() : npos;
}

size_t find_last_text(std::string_view text, std::string_view needle) {
  const std::string back(text.rbegin(), text.rend()), back_needle(needle.rbegin(), needle.rend());
  const size_t at = find_text(back, back_needle);
  return at == npos ? npos : text.size() - at - needle.size();
}

std::string replaced(Budget& budget, std::string_view text, std::string_view old,
                     std::string_view now, int64_t count) {
  budget.bytes(text.size());
  std::string out;
  const auto add = [&](std::string_view part) {
    budget.bytes(part.size() + 1);
    out += part;
  };
  size_t at = 0;
  if (old.empty()) {  // before each character and at the end
    for (; count != 0; --count) {
      add(now);
      if (at == text.size()) break;
      const size_t size = decode_utf8(text, at).size;
      add(text.substr(at, size));
      at += size;
    }
  } else {
    for (size_t next; count != 0 && (next = find_text(text, old, at)) != npos; --count) {
      add(text.substr(at, next - at));
      add(now);
      at = next + old.size();
    }
  }
  add(text.substr(at));
  return out;
}

bool is_all_of_case(std::string_view text, Case wanted) {
  bool some = false;
  for (size_t at = 0; at < text.size();) {
    const Utf8Char c = decode_utf8(text, at);
    at += c.size;
    const Case found = case_of(c.code);
    if (found != Case::kNone && found != wanted) return false;
    some = some || found == wanted;
  }
  return some;
}

std::vector<std::string_view> split_lines(std::string_view text, bool keep_ends) {
  std::vector<std::string_view> lines;
  size_t begin = 0;
  for (size_t at = 0; at < text.size();) {
    const size_t size = line_end(text, at);
    if (size == 0) {
      ++at;
      continue;
    }
    lines.push_back(text.substr(begin, at - begin + (keep_ends ? size : 0)));
    begin = at += size;
  }
  if (begin < text.size()) lines.push_back(text.substr(begin));
  return lines;
}

std::string upper(std::string_view text) {
  return changed(text, [](std::string_view character, const Utf8Char& c, size_t, std::string& out) {
    append_upper(character, c.code, out);
  });
}

std::string lower(std::string_view text) {
  return changed(text, [&](std::string_view, const Utf8Char& c, size_t at, std::string& out) {
    append_lower(text, at, c, out);
  });
}

std::string title(std::string_view text) {
  bool in_word = false;
  return changed(text,
                 [&](std::string_view character, const Utf8Char& c, size_t at, std::string& out) {
                   if (in_word) {
                     append_lower(text, at, c, out);
                   } else {
                     append_title(character, c.code, out);
                   }
                   in_word = case_of(c.code) != Case::kNone;
                 });
}

std::string capitalize(std::string_view text) {
  return changed(text,
                 [&](std::string_view character, const Utf8Char& c, size_t at, std::string& out) {
                   if (at == 0) {
                     append_title(character, c.code, out);
                   } else {
                     append_lower(text, at, c, out);
                   }
                 });
}

std::string swap_case(std::string_view text) {
  return changed(text,
                 [&](std::string_view character, const Utf8Char& c, size_t at, std::string& out) {
                   if (case_of(c.code) == Case::kUpper) {
                     append_lower(text, at, c, out);
                   } else if (case_of(c.code) == Case::kLower) {
                     append_upper(character, c.code, out);
                   } else {
                     out += character;
                   }
                 });
}

}  // namespace halo::jinja
