// text % value and text.format(...): what templates use of them; the rest is refused by name.
#include <algorithm>
#include <cmath>

#include "halo/jinja/operators.h"
#include "halo/jinja/show.h"
#include "halo/jinja/text.h"

namespace halo::jinja {
namespace {

// One %-[(key)][flags][width][.precision]conversion.
struct Conversion {
  std::optional<std::string> key;
  bool left = false, plus = false, space = false, zero = false;
  int width = 0, precision = -1;  // -1: not given
  char kind = 0;
};

constexpr int kMaxWidth = 1000;

class PercentFormat {
 public:
  PercentFormat(Budget& budget, std::string_view text, const Value& value)
      : budget_(budget), text_(text), value_(value) {
    const Sequence* sequence = value.sequence();
    if (sequence && sequence->kind == Sequence::Kind::kTuple) tuple_ = sequence;
  }

  std::string run() {
    std::string out;
    while (at_ < text_.size()) {
      const size_t percent = std::min(text_.find('%', at_), text_.size());
      out += text_.substr(at_, percent - at_);
      at_ = percent;
      if (at_ == text_.size()) break;
      ++at_;
      const Conversion conversion = read_conversion();
      if (conversion.kind == '%') {
        out += '%';
        continue;
      }
      const std::string shown = show(conversion, argument(conversion));
      budget_.bytes(shown.size());
      out += shown;
    }
    // Python takes lists for mappings here.
    const bool mapping = value_.dict() || (value_.sequence() && !tuple_);
    if (!mapping && used_ < (tuple_ ? tuple_->items.size() : 1)) {
      throw_error("'%': more values than conversions in the text");
    }
    return out;
  }

 private:
  char next() {
    if (at_ == text_.size()) throw_error("'%': the text ends inside a conversion");
    return text_[at_++];
  }

  Conversion read_conversion() {
    Conversion out;
    char c = next();
    if (c == '(') {
      const size_t end = text_.find(')', at_);
      if (end == npos) throw_error("'%': a key without its ')'");
      out.key = std::string(text_.substr(at_, end - at_));
      at_ = end + 1;
      c = next();
    }
    for (;; c = next()) {
      if (c == '-') {
        out.left = true;
      } else if (c == '+') {
        out.plus = true;
      } else if (c == ' ') {
        out.space = true;
      } else if (c == '0') {
        out.zero = true;
      } else {
        break;
      }
    }
    const auto number = [&] {
      int value = 0;
      for (; c >= '0' && c <= '9'; c = next()) {
        value = value * 10 + (c - '0');
        if (value > kMaxWidth) throw_error("'%': a width of more than {}", kMaxWidth);
      }
      return value;
    };
    out.width = number();
    if (c == '.') {
      c = next();
      out.precision = number();
    }
    out.kind = c;
    return out;
  }

  const Value& argument(const Conversion& conversion) {
    if (conversion.key) {
      const Dict* dict = value_.dict();
      const Value* found = dict ? dict->find(*conversion.key) : nullptr;
      if (!found) throw_error("'%': there is no value '{}'", *conversion.key);
      return *found;
    }
    const size_t i = used_++;
    if (tuple_ ? i >= tuple_->items.size() : i > 0) {
      throw_error("'%': more conversions in the text than values");
    }
    return tuple_ ? tuple_->items[i] : value_;
  }

  std::string show(const Conversion& conversion, const Value& value) const {
    switch (conversion.kind) {
      case 's':
      case 'r': {
        const std::string text =
            conversion.kind == 's' ? to_text(budget_, value) : to_repr(budget_, value);
        const size_t size =
            conversion.precision < 0 ? text.size() : character_offset(text, conversion.precision);
        return pad(conversion, "", text.substr(0, size), false);
      }
      case 'd':
      case 'i':
        return show_integer(conversion, value);
      case 'f':
        return show_float(conversion, value);
      default:
        throw_error("'%': the conversion '%{}' is not supported", conversion.kind);
    }
  }

  std::string show_integer(const Conversion& conversion, const Value& value) const {
    if (!value.is_number()) throw_error("'%{}' of a {}", conversion.kind, type_name(value));
    if (conversion.precision >= 0)
      throw_error("'%{}' with a precision is not supported", conversion.kind);
    const double number = value.number();
    if (value.is_float() && !(std::fabs(number) < 9e18)) {
      throw_error("'%{}' of a float of that size", conversion.kind);
    }
    const int64_t integer = value.is_float() ? static_cast<int64_t>(number) : value.integer();
    const std::string text = fmt::format("{}", integer);
    return pad(conversion, sign(conversion, integer < 0), integer < 0 ? text.substr(1) : text,
               true);
  }

  std::string show_float(const Conversion& conversion, const Value& value) const {
    if (!value.is_number()) throw_error("'%f' of a {}", type_name(value));
    const double number = value.number();
    const bool negative = std::signbit(number) && !std::isnan(number);
    const std::string text = fmt::format("{:.{}f}", std::fabs(number),
                                         conversion.precision < 0 ? 6 : conversion.precision);
    return pad(conversion, sign(conversion, negative), text, std::isfinite(number));
  }

  static std::string sign(const Conversion& conversion, bool negative) {
    return negative ? "-" : conversion.plus ? "+" : conversion.space ? " " : "";
  }

  std::string pad(const Conversion& conversion, std::string sign, std::string text,
                  bool number) const {
    const size_t size = num_characters(text) + sign.size();
    const auto width = static_cast<size_t>(conversion.width);
    const size_t missing = width > size ? width - size : 0;
    if (conversion.left) return sign + text + std::string(missing, ' ');
    if (conversion.zero && number) return sign + std::string(missing, '0') + text;
    return std::string(missing, ' ') + sign + text;
  }

  Budget& budget_;
  std::string_view text_;
  const Value& value_;
  const Sequence* tuple_ = nullptr;
  size_t at_ = 0, used_ = 0;
};

// The value of {}, {0} or {name}.
const Value& field(const Arguments& arguments, std::string_view name, int64_t& automatic) {
  const bool digits = std::ranges::all_of(name, [](char c) { return c >= '0' && c <= '9'; });
  if (digits) {
    if (name.size() > 3) throw_error("'format': there is no argument {}", name);
    if (name.empty() == (automatic < 0)) throw_error("'format': both {{}} and {{0}} in one text");
    int64_t index = automatic;
    if (name.empty()) {
      ++automatic;
    } else {
      index = std::stoi(std::string(name));
    }
    if (index >= static_cast<int64_t>(arguments.positional.size())) {
      throw_error("'format': there is no argument {}", index);
    }
    return arguments.positional[index];
  }
  if (name.find_first_of(".[!:{") != npos) {
    throw_error("'format': the field '{{{}}}' is not supported, only {{}}, {{0}} and {{name}}",
                name);
  }
  for (const auto& [known, value] : arguments.named) {
    if (known == name) return value;
  }
  throw_error("'format': there is no argument '{}'", name);
}

}  // namespace

std::string format_percent(Budget& budget, std::string_view text, const Value& value) {
  budget.bytes(text.size());
  return PercentFormat(budget, text, value).run();
}

std::string format_braces(Budget& budget, std::string_view text, const Arguments& arguments) {
  budget.bytes(text.size());
  std::string out;
  int64_t automatic = 0;  // the next of {}; -1 once {0} is used
  for (size_t at = 0; at < text.size(); ++at) {
    const char c = text[at];
    if (c != '{' && c != '}') {
      out += c;
      continue;
    }
    if (at + 1 < text.size() && text[at + 1] == c) {
      out += c;
      ++at;
      continue;
    }
    const size_t end = c == '{' ? text.find('}', at) : npos;
    if (end == npos) throw_error("'format': a single '{}'", c);
    const std::string_view name = text.substr(at + 1, end - at - 1);
    const bool numbered = !name.empty() && name[0] >= '0' && name[0] <= '9';
    if (numbered && automatic == 0) automatic = -1;
    const std::string shown = to_text(budget, field(arguments, name, automatic));
    budget.bytes(shown.size());
    out += shown;
    at = end;
  }
  return out;
}

}  // namespace halo::jinja
