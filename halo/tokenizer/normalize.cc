// utf8proc gives the character data and the composition pass. Its own decomposition sorts combining
// marks by exchanging neighbours, quadratic in the length of a run, so marks are sorted here.
#include "halo/tokenizer/normalize.h"

#include <utf8proc.h>

#include <algorithm>
#include <array>
#include <optional>

#include "halo/base/check.h"
#include "halo/base/utf8.h"
#include "halo/tokenizer/unicode.h"

namespace halo {
namespace {

using Codes = std::vector<utf8proc_int32_t>;

char32_t code_of(utf8proc_int32_t code) {
  return static_cast<char32_t>(code);
}

bool composes(NormalForm form) {
  return form == NormalForm::kNfc || form == NormalForm::kNfkc;
}

void append_decomposed(char32_t code, NormalForm form, Codes& out) {
  if (is_young(code)) return out.push_back(static_cast<utf8proc_int32_t>(code));
  const bool compat = form == NormalForm::kNfkc || form == NormalForm::kNfkd;
  std::array<utf8proc_int32_t, 32> parts;  // none is longer than 18
  int boundary = 0;
  const auto count =
      utf8proc_decompose_char(static_cast<utf8proc_int32_t>(code), parts.data(), parts.size(),
                              static_cast<utf8proc_option_t>(UTF8PROC_STABLE | UTF8PROC_DECOMPOSE |
                                                             (compat ? UTF8PROC_COMPAT : 0)),
                              &boundary);
  HALO_CHECK(count >= 0 && count <= static_cast<int64_t>(parts.size()),
             "normalize: U+{:04X} has no decomposition", static_cast<uint32_t>(code));
  out.insert(out.end(), parts.begin(), parts.begin() + count);
}

void sort_marks(Codes& codes) {
  const auto is_mark = [](utf8proc_int32_t code) { return combining_class(code_of(code)) != 0; };
  for (auto begin = codes.begin(); begin != codes.end();) {
    begin = std::find_if(begin, codes.end(), is_mark);
    const auto end = std::find_if_not(begin, codes.end(), is_mark);
    std::stable_sort(begin, end, [](utf8proc_int32_t a, utf8proc_int32_t b) {
      return combining_class(code_of(a)) < combining_class(code_of(b));
    });
    begin = end;
  }
}

// Nothing composes across these. utf8proc takes U+11A7, the code before the first final jamo, for a
// final jamo that adds nothing and drops it after a syllable; and it knows young characters.
bool stands_alone(utf8proc_int32_t code) {
  return code == 0x11A7 || is_young(code_of(code));
}

void append_composed(Codes& codes, std::string& out) {
  for (auto begin = codes.begin(); begin != codes.end();) {
    const auto end =
        stands_alone(*begin) ? begin + 1 : std::find_if(begin, codes.end(), stands_alone);
    const auto size = utf8proc_normalize_utf32(
        &*begin, end - begin, static_cast<utf8proc_option_t>(UTF8PROC_STABLE | UTF8PROC_COMPOSE));
    HALO_CHECK(size >= 0, "normalize: {}", utf8proc_errmsg(size));
    std::for_each(begin, begin + size, [&](auto code) { append_utf8(code_of(code), out); });
    begin = end;
  }
}

void append_normalized(std::string_view text, NormalForm form, std::string& out) {
  Codes codes;
  codes.reserve(text.size());
  for (size_t at = 0; at < text.size();) {
    const CodeAt c = code_at(text, at);
    append_decomposed(c.code, form, codes);
    at = c.end;
  }
  sort_marks(codes);
  if (composes(form)) return append_composed(codes, out);
  for (const auto code : codes) append_utf8(code_of(code), out);
}

bool is_inert(char32_t code, NormalForm form) {
  return form == NormalForm::kNfc ? is_nfc_inert(code) : code < 0x80;
}

// First character from `at` on that is not inert; `previous` becomes the one before it.
size_t skip_inert(std::string_view text, size_t at, NormalForm form, size_t& previous) {
  while (at < text.size()) {
    const CodeAt c = code_at(text, at);
    if (!is_inert(c.code, form)) break;
    previous = at;
    at = c.end;
  }
  return at;
}

// Text without characters that are not inert is its own normal form. Elsewhere these are normalised
// with the one before them, which may be their base.
std::optional<std::string> changed_by(NormalForm form, std::string_view text) {
  size_t previous = 0;
  size_t at = skip_inert(text, 0, form, previous);
  if (at == text.size()) return std::nullopt;
  std::string out;
  out.reserve(text.size());
  size_t copied = 0;
  while (at < text.size()) {
    const size_t begin = previous;
    while (at < text.size()) {
      const CodeAt c = code_at(text, at);
      if (is_inert(c.code, form)) break;
      at = c.end;
    }
    out.append(text, copied, begin - copied);
    append_normalized(text.substr(begin, at - begin), form, out);
    copied = previous = at;
    at = skip_inert(text, at, form, previous);
  }
  return out.append(text, copied);
}

// Each step's result, or nothing where it leaves the text as it is.
struct StepRunner {
  std::string_view text;
  size_t max_bytes;

  std::optional<std::string> operator()(NormalForm form) const { return changed_by(form, text); }

  std::optional<std::string> operator()(const Lowercase&) const {
    std::string out;
    out.reserve(text.size());
    for (size_t at = 0; at < text.size();) {
      const CodeAt c = code_at(text, at);
      const auto [lower, second] = to_lower(c.code);
      append_utf8(lower, out);
      if (second != 0) append_utf8(second, out);
      at = c.end;
    }
    return out;
  }

  std::optional<std::string> operator()(const Prepend& prepend) const {
    if (text.empty()) return std::nullopt;
    return prepend.text + std::string(text);
  }

  std::optional<std::string> operator()(const Replace& replace) const {
    if (const auto* what = std::get_if<std::string>(&replace.what))
      return replace_all(text, *what, replace.with, max_bytes);
    std::string out;
    size_t copied = 0;
    std::get<Regex>(replace.what).for_each_match(text, [&](size_t begin, size_t end) {
      out.append(text, copied, begin - copied).append(replace.with);
      copied = end;
      if (out.size() > max_bytes) throw_error("normalized text is longer than {} bytes", max_bytes);
    });
    return out.append(text, copied);
  }

  std::optional<std::string> operator()(const StripSpaces& strip) const {
    size_t begin = 0, end = text.size();
    while (strip.left && begin < end && is_space(code_at(text, begin).code))
      begin = code_at(text, begin).end;
    while (strip.right && end > begin) {
      const size_t last = code_before(text, end);
      if (!is_space(code_at(text, last).code)) break;
      end = last;
    }
    return std::string(text.substr(begin, end - begin));
  }
};

}  // namespace

std::string normalize(std::string_view text, NormalForm form) {
  auto changed = changed_by(form, text);
  return changed ? *std::move(changed) : std::string(text);
}

std::string replace_all(std::string_view text, std::string_view what, std::string_view with,
                        size_t max_bytes) {
  std::string out;
  size_t copied = 0;
  for (size_t at = text.find(what); at != text.npos; at = text.find(what, copied)) {
    out.append(text, copied, at - copied).append(with);
    copied = at + what.size();
    if (out.size() > max_bytes) throw_error("normalized text is longer than {} bytes", max_bytes);
  }
  return out.append(text, copied);
}

std::string_view Normalizer::apply(std::string_view text, std::string& buffer,
                                   size_t max_bytes) const {
  for (const Step& step : steps_) {
    auto changed = std::visit(StepRunner{text, max_bytes}, step);
    if (!changed) continue;
    if (changed->size() > max_bytes)
      throw_error("normalized text is longer than {} bytes; cut it", max_bytes);
    buffer = *std::move(changed);
    text = buffer;
  }
  return text;
}

}  // namespace halo
