#include "halo/tokenizer/pieces.h"

#include <utf8proc.h>

#include <algorithm>
#include <cstdint>

#include "halo/tokenizer/utf8.h"

namespace halo {
namespace {

// The pattern tells apart only these. \r and \n are spaces too (\s).
enum class CharClass : uint8_t { kLetter, kNumber, kNewline, kSpace, kOther };

struct CodeRange {
  char32_t first, last;
};

// What Unicode 15.1 and 16 added. The reference knows it, utf8proc before 2.10 does not; without it
// the pieces would depend on the machine's utf8proc.
constexpr CodeRange kRecentLetters[] = {
    {0x1C89, 0x1C8A},   {0xA7CB, 0xA7CD},   {0xA7DA, 0xA7DC},   {0x105C0, 0x105F3},
    {0x10D4A, 0x10D65}, {0x10D6F, 0x10D85}, {0x10EC2, 0x10EC4}, {0x11380, 0x11389},
    {0x1138B, 0x1138B}, {0x1138E, 0x1138E}, {0x11390, 0x113B5}, {0x113B7, 0x113B7},
    {0x113D1, 0x113D1}, {0x113D3, 0x113D3}, {0x11BC0, 0x11BE0}, {0x13460, 0x143FA},
    {0x16100, 0x1611D}, {0x16D40, 0x16D6C}, {0x18CFF, 0x18CFF}, {0x1E5D0, 0x1E5ED},
    {0x1E5F0, 0x1E5F0}, {0x2EBF0, 0x2EE5D}};
constexpr CodeRange kRecentNumbers[] = {{0x10D40, 0x10D49}, {0x116D0, 0x116E3}, {0x11BF0, 0x11BF9},
                                        {0x16130, 0x16139}, {0x16D70, 0x16D79}, {0x1CCF0, 0x1CCF9},
                                        {0x1E5F1, 0x1E5FA}};

CharClass classify_unassigned(char32_t code) {
  const auto holds = [code](const CodeRange& r) { return code >= r.first && code <= r.last; };
  if (std::ranges::any_of(kRecentLetters, holds)) return CharClass::kLetter;
  if (std::ranges::any_of(kRecentNumbers, holds)) return CharClass::kNumber;
  return CharClass::kOther;
}

CharClass classify_unicode(char32_t code) {
  switch (utf8proc_category(static_cast<utf8proc_int32_t>(code))) {
    case UTF8PROC_CATEGORY_LU:
    case UTF8PROC_CATEGORY_LL:
    case UTF8PROC_CATEGORY_LT:
    case UTF8PROC_CATEGORY_LM:
    case UTF8PROC_CATEGORY_LO:
      return CharClass::kLetter;
    case UTF8PROC_CATEGORY_ND:
    case UTF8PROC_CATEGORY_NL:
    case UTF8PROC_CATEGORY_NO:
      return CharClass::kNumber;
    case UTF8PROC_CATEGORY_ZS:
    case UTF8PROC_CATEGORY_ZL:
    case UTF8PROC_CATEGORY_ZP:
      return CharClass::kSpace;
    case UTF8PROC_CATEGORY_CN:
      return classify_unassigned(code);
    default:
      return code == 0x85 ? CharClass::kSpace : CharClass::kOther;
  }
}

constexpr CharClass classify_ascii(char32_t code) {
  if ((code | 0x20) >= 'a' && (code | 0x20) <= 'z') return CharClass::kLetter;
  if (code >= '0' && code <= '9') return CharClass::kNumber;
  if (code == '\r' || code == '\n') return CharClass::kNewline;
  if (code == ' ' || (code >= '\t' && code <= '\r')) return CharClass::kSpace;
  return CharClass::kOther;
}

struct Char {
  char32_t code = 0;
  CharClass kind = CharClass::kOther;
  size_t end = 0;  // 0: there is none, the text has ended
};

Char char_at(std::string_view text, size_t at) {
  if (at >= text.size()) return {};
  const Utf8Char c = decode_utf8(text, at);
  return {c.code, c.code < 0x80 ? classify_ascii(c.code) : classify_unicode(c.code), at + c.size};
}

bool is_class(const Char& c, CharClass kind) {
  return c.end != 0 && c.kind == kind;
}

// End of the run of `kind` from `at`, which may be empty.
size_t run_end(std::string_view text, size_t at, CharClass kind) {
  for (Char c = char_at(text, at); is_class(c, kind); c = char_at(text, at)) at = c.end;
  return at;
}

// After an apostrophe: end of s, t, m, d, re, ve or ll in either case, or 0. The long s folds to s.
size_t contraction_end(std::string_view text, size_t at) {
  const auto folded = [](const Char& c) {
    return c.code == 0x17F ? U's' : c.code < 0x80 ? (c.code | 0x20) : U'\0';
  };
  const Char first = char_at(text, at);
  switch (folded(first)) {
    case 's':
    case 't':
    case 'm':
    case 'd':
      return first.end;
    case 'r':
    case 'v':
    case 'l': {
      const Char second = char_at(text, first.end);
      return folded(second) == (folded(first) == 'l' ? U'l' : U'e') ? second.end : 0;
    }
    default:
      return 0;
  }
}

// \s*[\r\n]+ | \s+(?!\S) | \s+ at a space: up to the last line end of the run, else the run without
// the space that may lead the next word, else that space.
size_t space_end(std::string_view text, size_t begin) {
  size_t after_newline = 0, last = begin, at = begin;
  for (Char c = char_at(text, at); c.end != 0; c = char_at(text, at)) {
    if (c.kind != CharClass::kSpace && c.kind != CharClass::kNewline) break;
    last = at;
    at = c.end;
    if (c.kind == CharClass::kNewline) after_newline = at;
  }
  if (after_newline != 0) return after_newline;
  return at == text.size() || last == begin ? at : last;
}

}  // namespace

size_t piece_end(std::string_view text, size_t begin) {
  const Char first = char_at(text, begin);
  if (first.code == '\'') {
    if (const size_t end = contraction_end(text, first.end)) return end;
  }
  if (first.kind == CharClass::kLetter) return run_end(text, first.end, CharClass::kLetter);
  if (first.kind == CharClass::kNumber) return first.end;
  if (first.kind == CharClass::kNewline) return space_end(text, begin);

  const Char second = char_at(text, first.end);
  if (is_class(second, CharClass::kLetter)) return run_end(text, second.end, CharClass::kLetter);
  if (first.kind == CharClass::kOther || (first.code == ' ' && is_class(second, CharClass::kOther)))
    return run_end(text, run_end(text, first.end, CharClass::kOther), CharClass::kNewline);
  return space_end(text, begin);
}

}  // namespace halo
