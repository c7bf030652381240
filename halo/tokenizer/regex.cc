#include "halo/tokenizer/regex.h"

#include <oniguruma.h>

#include <array>

#include "halo/base/check.h"
#include "halo/base/utf8.h"

namespace halo {
namespace {

constexpr size_t kMaxPatternBytes = 8'192;
constexpr unsigned kMaxDepth = 100;                // of groups in a pattern
constexpr unsigned kMaxStack = 1'000'000;          // entries of some 50 bytes
constexpr unsigned long kMaxRetries = 10'000'000;  // backtracks for one match

const OnigUChar* bytes_of(const char* text) {
  return reinterpret_cast<const OnigUChar*>(text);
}

std::string message_of(int code, OnigErrorInfo* info) {
  std::array<OnigUChar, ONIG_MAX_ERROR_MESSAGE_LEN> text{};
  const int size = onig_error_code_to_str(text.data(), code, info);
  return {reinterpret_cast<const char*>(text.data()), static_cast<size_t>(size)};
}

// Oniguruma's own syntax without what runs code or recurses.
const OnigSyntaxType& syntax() {
  static const OnigSyntaxType made = [] {
    OnigEncoding encodings[] = {ONIG_ENCODING_UTF8};
    onig_initialize(encodings, 1);
    onig_set_parse_depth_limit(kMaxDepth);
    OnigSyntaxType out;
    onig_copy_syntax(&out, ONIG_SYNTAX_ONIGURUMA);
    const unsigned refused = ONIG_SYN_OP2_QMARK_BRACE_CALLOUT_CONTENTS |
                             ONIG_SYN_OP2_ASTERISK_CALLOUT_NAME | ONIG_SYN_OP2_ESC_G_SUBEXP_CALL |
                             ONIG_SYN_OP2_QMARK_TILDE_ABSENT_GROUP |
                             ONIG_SYN_OP2_QMARK_LPAREN_IF_ELSE;
    onig_set_syntax_op2(&out, onig_get_syntax_op2(&out) & ~refused);
    return out;
  }();
  return made;
}

}  // namespace

struct Regex::Compiled {
  explicit Compiled(std::string text) : pattern(std::move(text)) {}
  ~Compiled() { onig_free(regex); }
  Compiled(const Compiled&) = delete;
  Compiled& operator=(const Compiled&) = delete;

  std::string pattern;
  regex_t* regex = nullptr;
};

Regex::Regex(std::string pattern, const std::string& file) {
  if (pattern.empty() || pattern.size() > kMaxPatternBytes) {
    throw_error("{}: a pattern of {} bytes; expected 1 to {}", file, pattern.size(),
                kMaxPatternBytes);
  }
  const auto compiled = std::make_shared<Compiled>(std::move(pattern));
  const std::string& text = compiled->pattern;
  // The syntax takes \g<name> for the letter g.
  for (size_t at = text.find('\\'); at < text.size(); at = text.find('\\', at + 2)) {
    if (text.substr(at, 2) == "\\g")
      throw_error("{}: pattern '{}' cannot be used: \\g is not supported", file, text);
  }
  OnigErrorInfo info;
  OnigSyntaxType known = syntax();
  const int code =
      onig_new(&compiled->regex, bytes_of(text.data()), bytes_of(text.data() + text.size()),
               ONIG_OPTION_NONE, ONIG_ENCODING_UTF8, &known, &info);
  if (code != ONIG_NORMAL)
    throw_error("{}: pattern '{}' cannot be used: {}", file, text, message_of(code, &info));
  compiled_ = compiled;
}

void Regex::for_each_match(std::string_view text,
                           const std::function<void(size_t begin, size_t end)>& found) const {
  const std::unique_ptr<OnigRegion, void (*)(OnigRegion*)> region(
      onig_region_new(), [](OnigRegion* r) { onig_region_free(r, 1); });
  const std::unique_ptr<OnigMatchParam, void (*)(OnigMatchParam*)> limits(onig_new_match_param(),
                                                                          onig_free_match_param);
  onig_initialize_match_param(limits.get());
  onig_set_match_stack_limit_size_of_match_param(limits.get(), kMaxStack);
  onig_set_retry_limit_in_match_of_match_param(limits.get(), kMaxRetries);
  onig_set_retry_limit_in_search_of_match_param(limits.get(), kMaxRetries);
  const OnigUChar* begin = bytes_of(text.data());
  const OnigUChar* end = begin + text.size();
  size_t from = 0;
  size_t last_end = text.npos;  // of a match
  while (from <= text.size()) {
    const int at = onig_search_with_param(compiled_->regex, begin, end, begin + from, end,
                                          region.get(), ONIG_OPTION_NONE, limits.get());
    if (at == ONIG_MISMATCH) return;
    if (at < 0) {
      throw_error("pattern '{}' cannot be matched in a text of {} bytes: {}; cut the text",
                  compiled_->pattern, text.size(), message_of(at, nullptr));
    }
    const auto match_begin = static_cast<size_t>(region->beg[0]);
    const auto match_end = static_cast<size_t>(region->end[0]);
    if (match_begin == match_end && match_end == last_end) {
      if (from == text.size()) return;
      from = code_at(text, from).end;
      continue;
    }
    found(match_begin, match_end);
    from = last_end = match_end;
  }
}

}  // namespace halo
