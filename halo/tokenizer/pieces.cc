#include "halo/tokenizer/pieces.h"

#include "halo/base/utf8.h"
#include "halo/tokenizer/unicode.h"

namespace halo {
namespace {

struct Char {
  char32_t code = 0;
  CharClass kind = CharClass::kOther;
  size_t end = 0;  // 0: there is none, the text has ended
};

inline Char char_at(std::string_view text, size_t at) {
  if (at >= text.size()) return {};
  const CodeAt c = code_at(text, at);
  return {c.code, char_class(c.code), c.end};
}

bool is_class(const Char& c, CharClass kind) {
  return c.end != 0 && c.kind == kind;
}

// End of the run of `kind` from `at`, which may be empty.
size_t run_end(std::string_view text, size_t at, CharClass kind) {
  while (at < text.size()) {
    const auto byte = static_cast<uint8_t>(text[at]);
    if (byte < 0x80) {
      if (detail::kAsciiClasses[byte] != kind) break;
      ++at;
      continue;
    }
    const CodeAt c = code_at(text, at);
    if (char_class(c.code) != kind) break;
    at = c.end;
  }
  return at;
}

// After an apostrophe: end of s, t, m, d, re, ve or ll, or 0. With `any_case` in either case, and
// the long s, which folds to s.
size_t contraction_end(std::string_view text, size_t at, bool any_case) {
  const auto folded = [any_case](const Char& c) -> char32_t {
    if (!any_case) return c.code;
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
// the space that may lead the next word, else that space. Without `line_ends` the first of the
// three is not there.
size_t space_end(std::string_view text, size_t begin, bool line_ends) {
  size_t after_newline = 0, last = begin, at = begin;
  for (Char c = char_at(text, at); c.end != 0; c = char_at(text, at)) {
    if (c.kind != CharClass::kSpace && c.kind != CharClass::kNewline) break;
    last = at;
    at = c.end;
    if (c.kind == CharClass::kNewline) after_newline = at;
  }
  if (line_ends && after_newline != 0) return after_newline;
  return at == text.size() || last == begin ? at : last;
}

size_t gpt2_end(std::string_view text, size_t begin) {
  const Char first = char_at(text, begin);
  if (first.code == '\'') {
    if (const size_t end = contraction_end(text, first.end, false)) return end;
  }
  // A space leads whatever run follows it.
  const Char lead = first.code == ' ' ? char_at(text, first.end) : first;
  if (lead.end != 0 && lead.kind != CharClass::kSpace && lead.kind != CharClass::kNewline)
    return run_end(text, lead.end, lead.kind);
  return space_end(text, begin, false);
}

// Qwen2's and Llama-3's differ in how many digits make a piece.
size_t qwen2_end(std::string_view text, size_t begin, int max_digits) {
  const Char first = char_at(text, begin);
  if (first.code == '\'') {
    if (const size_t end = contraction_end(text, first.end, true)) return end;
  }
  if (first.kind == CharClass::kLetter) return run_end(text, first.end, CharClass::kLetter);
  if (first.kind == CharClass::kNumber) {
    size_t end = first.end;
    for (int i = 1; i < max_digits; ++i) {
      const Char next = char_at(text, end);
      if (!is_class(next, CharClass::kNumber)) break;
      end = next.end;
    }
    return end;
  }
  if (first.kind == CharClass::kNewline) return space_end(text, begin, true);

  const Char second = char_at(text, first.end);
  if (is_class(second, CharClass::kLetter)) return run_end(text, second.end, CharClass::kLetter);
  if (first.kind == CharClass::kOther || (first.code == ' ' && is_class(second, CharClass::kOther)))
    return run_end(text, run_end(text, first.end, CharClass::kOther), CharClass::kNewline);
  return space_end(text, begin, true);
}

}  // namespace

std::optional<Pattern> known_pattern(std::string_view regex) {
  if (regex == kGpt2Pattern) return Pattern::kGpt2;
  if (regex == kQwen2Pattern) return Pattern::kQwen2;
  if (regex == kLlama3Pattern) return Pattern::kLlama3;
  return std::nullopt;
}

size_t piece_end(Pattern pattern, std::string_view text, size_t begin) {
  switch (pattern) {
    case Pattern::kGpt2:
      return gpt2_end(text, begin);
    case Pattern::kQwen2:
      return qwen2_end(text, begin, 1);
    case Pattern::kLlama3:
      return qwen2_end(text, begin, 3);
  }
  return text.size();
}

}  // namespace halo
