#include "halo/jinja/lexer.h"

#include <algorithm>

#include "halo/base/utf8.h"
#include "halo/jinja/text.h"

namespace halo::jinja {
namespace {

constexpr size_t kMaxNameBytes = 200;

bool is_digit_byte(char c) {
  return c >= '0' && c <= '9';
}
bool is_name_byte(char c) {
  return is_digit_byte(c) || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_';
}

int hex_value(char c) {
  if (is_digit_byte(c)) return c - '0';
  if (c >= 'a' && c <= 'f') return c - 'a' + 10;
  return c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
}

class Lexer {
 public:
  explicit Lexer(const Source& source) : source_(source), text_(source.text()) {}

  std::vector<Token> run() {
    while (at_ < text_.size()) read_data();
    emit(Token::Kind::kEnd, at_, "");
    return std::move(tokens_);
  }

 private:
  using Kind = Token::Kind;

  void emit(Kind kind, size_t at, std::string text) {
    tokens_.push_back({kind, at, std::move(text)});
  }
  bool at_text(std::string_view text) const { return text_.substr(at_).starts_with(text); }
  char peek(size_t offset = 0) const {
    return at_ + offset < text_.size() ? text_[at_ + offset] : '\0';
  }

  size_t behind_space(size_t at) const {
    return text_.size() - strip(text_.substr(at), std::nullopt, Side::kLeft).size();
  }

  // Text up to the next tag, then the tag.
  void read_data() {
    const size_t begin = at_;
    size_t tag = begin;
    do {
      tag = text_.find('{', tag);
    } while (tag != npos && tag + 1 < text_.size() &&
             std::string_view("{%#").find(text_[tag + 1]) == npos && ++tag);
    if (tag == npos || tag + 1 >= text_.size()) {
      emit(Kind::kData, begin, std::string(text_.substr(begin)));
      at_ = text_.size();
      return;
    }
    const char kind = text_[tag + 1];
    at_ = tag + 2;
    const char sign = peek() == '-' || peek() == '+' ? peek() : '\0';
    if (sign) ++at_;
    emit_data(begin, tag, sign, kind != '{');
    if (kind == '{') return read_tag(tag, Kind::kVariableBegin, Kind::kVariableEnd);
    if (kind == '#') return skip_comment(tag);
    if (const size_t end = raw_begin_end()) return read_raw(tag, end);
    read_tag(tag, Kind::kBlockBegin, Kind::kBlockEnd);
  }

  // Text before a tag with `sign`, less the spaces that the tag takes.
  void emit_data(size_t begin, size_t end, char sign, bool is_block) {
    std::string_view text = text_.substr(begin, end - begin);
    if (sign == '-') {
      text = strip(text, std::nullopt, Side::kRight);
    } else if (sign != '+' && is_block) {
      const size_t line = text.rfind('\n') + 1;  // npos + 1 is 0
      const bool starts_line = line > 0 || begin == 0 || text_[begin - 1] == '\n';
      const std::string_view tail = text.substr(line);
      if (starts_line && strip(tail, std::nullopt, Side::kRight).empty())
        text = text.substr(0, line);
    }
    if (!text.empty()) emit(Kind::kData, begin, std::string(text));
  }

  // Behind the end of a block, comment or raw block at `at`: "-" takes the spaces that follow, none
  // a line end, "+" nothing. 0 where there is no such end.
  size_t behind_end(size_t at, std::string_view end) const {
    const char sign =
        at < text_.size() && (text_[at] == '-' || text_[at] == '+') ? text_[at] : '\0';
    if (sign) ++at;
    if (!text_.substr(at).starts_with(end)) return 0;
    at += end.size();
    if (sign == '-') return behind_space(at);
    return !sign && at < text_.size() && text_[at] == '\n' ? at + 1 : at;
  }

  void skip_comment(size_t tag) {
    const size_t close = text_.find("#}", at_);
    if (close == npos) source_.fail(tag, "a comment without its end, '#}}'");
    const bool has_sign = close > at_ && (text_[close - 1] == '-' || text_[close - 1] == '+');
    at_ = behind_end(close - has_sign, "#}");
  }

  // Where the text of {% raw %} begins if that is the block at hand, else 0.
  size_t raw_begin_end() const {
    size_t at = behind_space(at_);
    if (!text_.substr(at).starts_with("raw")) return 0;
    at = behind_space(at + 3);
    if (text_.substr(at).starts_with("%}")) return at + 2;
    return text_.substr(at).starts_with("-%}") ? behind_space(at + 3) : 0;
  }

  void read_raw(size_t tag, size_t begin) {
    for (size_t open = begin; (open = text_.find("{%", open)) != npos; open += 2) {
      size_t at = open + 2;
      const char sign =
          at < text_.size() && (text_[at] == '-' || text_[at] == '+') ? text_[at] : '\0';
      at = behind_space(at + (sign != '\0'));
      if (!text_.substr(at).starts_with("endraw")) continue;
      const size_t end = behind_end(behind_space(at + 6), "%}");
      if (end == 0) continue;
      emit_data(begin, open, sign, true);
      at_ = end;
      return;
    }
    source_.fail(tag, "{{% raw %}} without its {{% endraw %}}");
  }

  bool read_tag_end(Kind end) {
    size_t behind = 0;
    if (end == Kind::kBlockEnd) {
      behind = behind_end(at_, "%}");
    } else if (at_text("-}}")) {
      behind = behind_space(at_ + 3);
    } else if (at_text("}}")) {
      behind = at_ + 2;
    }
    if (behind == 0) return false;
    emit(end, at_, "");
    at_ = behind;
    return true;
  }

  void read_tag(size_t tag, Kind begin, Kind end) {
    emit(begin, tag, "");
    std::string open;  // brackets not yet closed
    for (;;) {
      if (open.empty() && read_tag_end(end)) return;
      at_ = behind_space(at_);
      if (at_ == text_.size()) {
        source_.fail(tag, "a tag without its end, '{}'", end == Kind::kBlockEnd ? "%}" : "}}");
      }
      if (open.empty() && read_tag_end(end)) return;
      if (is_digit_byte(peek())) {
        read_number();
      } else if (is_name_byte(peek())) {
        read_name();
      } else if (peek() == '\'' || peek() == '"') {
        read_string();
      } else {
        read_operator(open);
      }
    }
  }

  void read_name() {
    const size_t begin = at_;
    while (is_name_byte(peek())) ++at_;
    if (at_ - begin > kMaxNameBytes) {
      source_.fail(begin, "a name of more than {} bytes", kMaxNameBytes);
    }
    emit(Kind::kName, begin, std::string(text_.substr(begin, at_ - begin)));
  }

  // Digits, '_' between them, from `at` on; the offset behind them.
  template <class IsDigit>
  size_t behind_digits(size_t at, IsDigit is_digit) const {
    const auto digit = [&](size_t i) { return i < text_.size() && is_digit(text_[i]); };
    if (!digit(at)) return at;
    while (digit(at) || (at < text_.size() && text_[at] == '_' && digit(at + 1))) ++at;
    return at;
  }

  void read_number() {
    const size_t begin = at_;
    size_t end = behind_digits(at_, is_digit_byte);
    Kind kind = Kind::kInteger;
    if (begin == 0 || text_[begin - 1] != '.') {  // x.0.5 is two elements, not a number
      size_t behind = end;
      if (behind + 1 < text_.size() && text_[behind] == '.' && is_digit_byte(text_[behind + 1])) {
        behind = behind_digits(behind + 1, is_digit_byte);
        kind = Kind::kFloat;
      }
      if (behind < text_.size() && (text_[behind] == 'e' || text_[behind] == 'E')) {
        size_t exponent = behind + 1;
        if (exponent < text_.size() && (text_[exponent] == '+' || text_[exponent] == '-'))
          ++exponent;
        if (const size_t last = behind_digits(exponent, is_digit_byte); last > exponent) {
          behind = last;
          kind = Kind::kFloat;
        }
      }
      if (kind == Kind::kFloat) end = behind;
    }
    if (kind == Kind::kInteger) end = behind_integer(begin, end);
    std::string digits(text_.substr(begin, end - begin));
    std::erase(digits, '_');
    at_ = end;
    emit(kind, begin, std::move(digits));
  }

  size_t behind_integer(size_t begin, size_t decimal_end) const {
    if (text_[begin] != '0') return decimal_end;
    const char letter = begin + 1 < text_.size() ? text_[begin + 1] | 0x20 : '\0';
    const int base = letter == 'x' ? 16 : letter == 'o' ? 8 : letter == 'b' ? 2 : 0;
    if (base != 0) {
      size_t first = begin + 2;
      if (first < text_.size() && text_[first] == '_') ++first;
      const size_t end =
          behind_digits(first, [&](char c) { return hex_value(c) >= 0 && hex_value(c) < base; });
      if (end > first) return end;
    }
    return behind_digits(begin, [](char c) { return c == '0'; });
  }

  void read_operator(std::string& open) {
    static constexpr std::string_view kOperators[] = {
        "//", "**", "==", "!=", ">=", "<=", "+", "-", "/", "*", "%", "~", "[",
        "]",  "(",  ")",  "{",  "}",  ">",  "<", "=", ".", ":", "|", ",", ";"};
    const auto* found = std::ranges::find_if(kOperators, [&](auto op) { return at_text(op); });
    if (found == std::end(kOperators)) {
      const size_t size = decode_utf8(text_, at_).size;
      source_.fail(at_, "unexpected '{}'", text_.substr(at_, size));
    }
    const char c = found->front();
    if (c == '(' || c == '[' || c == '{') {
      open += c == '(' ? ')' : c == '[' ? ']' : '}';
    } else if (c == ')' || c == ']' || c == '}') {
      if (open.empty()) source_.fail(at_, "unexpected '{}'", c);
      if (open.back() != c) source_.fail(at_, "unexpected '{}', expected '{}'", c, open.back());
      open.pop_back();
    }
    emit(Kind::kOperator, at_, std::string(*found));
    at_ += found->size();
  }

  void read_string() {
    const size_t begin = at_;
    const char quote = text_[at_++];
    std::string out;
    for (;;) {
      if (at_ >= text_.size()) source_.fail(begin, "a text without its closing {}", quote);
      const char c = text_[at_++];
      if (c == quote) break;
      if (c == '\\') {
        read_escape(begin, out);
      } else {
        out += c;
      }
    }
    emit(Kind::kString, begin, std::move(out));
  }

  // Python's escapes; an unknown one stays as it is.
  void read_escape(size_t begin, std::string& out) {
    if (at_ >= text_.size()) source_.fail(begin, "a text without its closing quote");
    static constexpr std::string_view kLetters = "\\'\"abfnrtv", kBytes = "\\'\"\a\b\f\n\r\t\v";
    const char c = text_[at_];
    if (const size_t known = kLetters.find(c); known != npos) {
      out += kBytes[known];
      ++at_;
    } else if (c == '\n') {
      ++at_;
    } else if (c >= '0' && c <= '7') {
      char32_t code = 0;
      for (int i = 0; i < 3 && peek() >= '0' && peek() <= '7'; ++i)
        code = code * 8 + (text_[at_++] - '0');
      append_utf8(code, out);
    } else if (c == 'x' || c == 'u' || c == 'U') {
      ++at_;
      read_hex(begin, c == 'x' ? 2 : c == 'u' ? 4 : 8, out);
    } else if (c == 'N') {
      source_.fail(at_ - 1, "'\\N' is not supported");
    } else if (static_cast<unsigned char>(c) >= 0x80) {
      // Python sees \xe9 there, of which the backslash escapes the other one.
      const Utf8Char character = decode_utf8(text_, at_);
      const auto code = static_cast<uint32_t>(character.code);
      out += code <= 0xFF     ? fmt::format("\\x{:02x}", code)
             : code <= 0xFFFF ? fmt::format("\\u{:04x}", code)
                              : fmt::format("\\U{:08x}", code);
      at_ += character.size;
    } else {
      out += '\\';
      out += c;
      ++at_;
    }
  }

  void read_hex(size_t begin, int num_digits, std::string& out) {
    char32_t code = 0;
    for (int i = 0; i < num_digits; ++i, ++at_) {
      const int digit = hex_value(peek());
      if (digit < 0) source_.fail(begin, "an escape needs {} hexadecimal digits", num_digits);
      code = code * 16 + digit;
    }
    if (code > 0x10FFFF || (code >= 0xD800 && code < 0xE000)) {
      source_.fail(begin, "an escape for U+{:04X}, which is no character",
                   static_cast<uint32_t>(code));
    }
    append_utf8(code, out);
  }

  const Source& source_;
  std::string_view text_;
  size_t at_ = 0;
  std::vector<Token> tokens_;
};

}  // namespace

std::vector<Token> tokenize(const Source& source) {
  return Lexer(source).run();
}

}  // namespace halo::jinja
