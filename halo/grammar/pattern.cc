#include "halo/grammar/pattern.h"

#include <algorithm>
#include <bitset>
#include <charconv>
#include <optional>

#include "halo/base/check.h"

namespace halo {
namespace {

constexpr size_t kMostLetters = 500;
// Each is states of an automaton, some ten where characters may have several bytes, and what they
// allow is worked out when a grammar is compiled.
constexpr int64_t kMostRepeats = 128, kMostRepeatsBeyondAscii = 32;
constexpr std::string_view kMarks = ".*+?()[]{}|^$/-";

// "{2}", "{2,}" or "{2,5}" at the beginning of `text`.
struct Bounds {
  size_t size;
  int64_t most;  // the lower one where there is no upper
};
std::optional<Bounds> read_bounds(std::string_view text) {
  const size_t end = text.find('}');
  if (end == std::string_view::npos) return std::nullopt;
  const char *at = text.data() + 1, *const last = text.data() + end;
  int64_t least = 0;
  const auto first = std::from_chars(at, last, least);
  if (first.ec != std::errc() || least < 0 || *at == '-') return std::nullopt;
  at = first.ptr;
  if (at == last) return Bounds{end + 1, least};
  if (*at++ != ',') return std::nullopt;
  if (at == last) return Bounds{end + 1, least};
  int64_t most = 0;
  const auto second = std::from_chars(at, last, most);
  if (second.ec != std::errc() || second.ptr != last || most < least) return std::nullopt;
  return Bounds{end + 1, most};
}

// All but a few at the borders of what UTF-8 writes in as many bytes: over these borders XGrammar's
// ranges hold bytes that are no UTF-8. Without the ends of lines, which "." does not match.
constexpr std::string_view kBeyondAscii =
    "\\u0080-\\u07fe\\u0801-\\u2027\\u202a-\\ud7ff\\ue000-\\ufffd\\u{10001}-\\u{10ffff}";

// Characters that a JSON string may hold as they are.
struct Letters {
  std::bitset<128> ascii;
  bool beyond = false;

  static std::bitset<128> all_ascii() {
    std::bitset<128> out;
    for (size_t c = ' '; c < 127; ++c) out[c] = c != '"' && c != '\\';
    return out;
  }
  void add(char first, char last) {
    for (auto c = static_cast<size_t>(first); c <= static_cast<size_t>(last); ++c) ascii.set(c);
  }
  // Of "d", "w" and "s", and of "D", "W" and "S", which are all others in ASCII.
  void add_class(char name) {
    Letters own;
    const char small = static_cast<char>(name | 0x20);
    if (small != 's') own.add('0', '9');
    if (small == 'w') {
      own.add('a', 'z');
      own.add('A', 'Z');
      own.add('_', '_');
    }
    if (small == 's') own.add(' ', ' ');
    ascii |= name == small ? own.ascii : ~own.ascii;
  }
  // "[...]"; empty where there is none.
  std::string text() const {
    const std::bitset<128> kept = ascii & all_ascii();
    std::string out;
    for (size_t c = 0; c < 128; ++c) {
      if (!kept[c]) continue;
      size_t last = c;
      while (kept[last + 1]) ++last;  // not 127
      out += fmt::format("\\x{:02x}-\\x{:02x}", c, last);
      c = last;
    }
    if (beyond) out += kBeyondAscii;
    return out.empty() ? out : "[" + out + "]";
  }
};

Letters any_letters() {
  return {.ascii = Letters::all_ascii(), .beyond = true};
}

class Reader {
 public:
  explicit Reader(std::string_view text) : text_(text) {}

  std::string read() {
    if (text_.size() > kMostLetters) throw_error("is longer than {} bytes", kMostLetters);
    for (const char c : text_) {
      if (c < ' ' || c > '~' || c == '"')
        throw_error("holds a quote, or a character that is not printable ASCII");
    }
    while (at_ < text_.size()) step(text_[at_]);
    if (depth_ > 0) throw_error("has a '(' that is not closed");
    if (repeats_ > (has_beyond_ ? kMostRepeatsBeyondAscii : kMostRepeats)) {
      throw_error("repeats more than {} times, or {} with '.' or '[^...]'; 'maxLength' may be more",
                  kMostRepeats, kMostRepeatsBeyondAscii);
    }
    return std::move(out_);
  }

 private:
  void step(char c) {
    switch (c) {
      case '[':
        return put(read_class());
      case '.':
        ++at_;
        return put(any_letters());
      case '\\':
        return read_escape();
      case '^':
      case '$':
        if (at_ != (c == '^' ? 0 : text_.size() - 1))
          throw_error("has a '{}' that is not at its {}", c, c == '^' ? "beginning" : "end");
        ++at_;
        may_repeat_ = false;
        return;
      case '(':
        return read_open();
      case '|':
        return copy(1, false);
      case ')':
        if (--depth_ < 0) throw_error("has a ')' too many");
        return copy(1, true);
      case '*':
      case '+':
      case '?':
      case '{':
        return read_repeat(c);
      case ']':
      case '}':
        throw_error("has a bare '{}'; write '\\{}'", c, c);
      default:
        return copy(1, true);
    }
  }

  void copy(size_t count, bool may_repeat) {
    out_ += text_.substr(at_, count);
    at_ += count;
    may_repeat_ = may_repeat;
  }

  void put(const Letters& letters) {
    const std::string text = letters.text();
    if (text.empty()) throw_error("has a class of characters that no JSON text holds bare");
    out_ += text;
    has_beyond_ |= letters.beyond;
    may_repeat_ = true;
  }

  // The letter behind a backslash, one of `letters` or a mark.
  char escaped(std::string_view letters) const {
    const char c = at_ + 1 < text_.size() ? text_[at_ + 1] : '\0';
    if (c == '\0' ||
        (kMarks.find(c) == std::string_view::npos && letters.find(c) == std::string_view::npos))
      throw_error("has the escape '\\{}', which is not supported", c == '\0' ? ' ' : c);
    return c;
  }

  void read_escape() {
    const char c = escaped("dDwWsS");
    Letters letters;
    if (kMarks.find(c) != std::string_view::npos) {
      letters.add(c, c);
    } else {
      letters.add_class(c);
    }
    at_ += 2;
    put(letters);
  }

  void read_open() {
    ++depth_;
    const bool is_special = at_ + 1 < text_.size() && text_[at_ + 1] == '?';
    if (!is_special) return copy(1, false);
    if (at_ + 2 >= text_.size() || text_[at_ + 2] != ':')
      throw_error("has a group '(?' that is not '(?:'");
    copy(3, false);
  }

  void read_repeat(char c) {
    if (!may_repeat_) throw_error("has a '{}' behind nothing that it could repeat", c);
    if (c != '{') return copy(1, false);
    const auto bounds = read_bounds(text_.substr(at_));
    if (!bounds) throw_error("has a '{{' that begins no number of times; write '\\{{'");
    if (bounds->most > kMostRepeats) repeats_ = kMostRepeats + 1;
    if (repeats_ <= kMostRepeats) repeats_ *= std::max<int64_t>(bounds->most, 1);
    copy(bounds->size, false);
  }

  Letters read_class() {
    ++at_;
    const bool is_negated = at_ < text_.size() && text_[at_] == '^';
    if (is_negated) ++at_;
    Letters out;
    bool has_class = false, is_empty = true;
    while (true) {
      if (at_ >= text_.size()) throw_error("has a '[' that is not closed");
      if (text_[at_] == ']') break;
      is_empty = false;
      if (text_[at_] == '\\' && std::string_view("dws").find(escaped("dws")) != std::string::npos) {
        out.add_class(text_[at_ + 1]);
        has_class = true;
        at_ += 2;
        continue;
      }
      const char first = read_letter();
      char last = first;
      if (at_ + 1 < text_.size() && text_[at_] == '-' && text_[at_ + 1] != ']') {
        ++at_;
        last = read_letter();
      }
      if (last < first)
        throw_error("has the range '{}-{}', which ends before it begins", first, last);
      out.add(first, last);
    }
    ++at_;
    if (is_empty) throw_error("has an empty class");
    if (is_negated) {
      out.ascii.flip();
      out.beyond = !has_class;
    }
    return out;
  }

  // One of a class.
  char read_letter() {
    if (text_[at_] == '[') throw_error("has a bare '[' in a class; write '\\['");
    if (text_[at_] != '\\') return text_[at_++];
    const char c = escaped("");
    at_ += 2;
    return c;
  }

  const std::string_view text_;
  std::string out_;
  size_t at_ = 0;
  int depth_ = 0;
  int64_t repeats_ = 1;  // of all bounds, as if each stood within the others
  bool may_repeat_ = false, has_beyond_ = false;
};

}  // namespace

std::string exact_pattern(std::string_view pattern) {
  return Reader(pattern).read();
}

}  // namespace halo
