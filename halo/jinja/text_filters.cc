// Filters that make or change text and numbers.
#include <charconv>
#include <cmath>

#include "halo/base/html.h"
#include "halo/base/utf8.h"
#include "halo/jinja/filters.h"
#include "halo/jinja/methods.h"
#include "halo/jinja/operators.h"
#include "halo/jinja/show.h"
#include "halo/jinja/text.h"

namespace halo::jinja {
namespace {

// Text as it is, other values as they print.
Value soft_text(Budget& budget, const Value& value) {
  return value.is_string() ? value : make_string(budget, to_text(budget, value));
}

// The method of text with the filter's name and arguments, on any value.
template <const char* name>
Value by_method(Budget& budget, const Value& value, Arguments&& arguments) {
  const Value text = soft_text(budget, value);
  return call_text_method(budget, *text.string(), name, std::move(arguments));
}
constexpr char kUpper[] = "upper", kLower[] = "lower", kCapitalize[] = "capitalize";

Value trim(Budget& budget, const Value& value, Arguments&& arguments) {
  const Bound bound("trim", std::move(arguments), {"chars"});
  Arguments chars;
  if (bound.has_value(0)) chars.positional.push_back(bound[0]);
  return call_text_method(budget, *soft_text(budget, value).string(), "strip", std::move(chars));
}

Value center(Budget& budget, const Value& value, Arguments&& arguments) {
  const Bound bound("center", std::move(arguments), {"width"});
  return call_text_method(budget, *soft_text(budget, value).string(), "center",
                          {{bound.get_or(0, int64_t{80})}, {}});
}

// Jinja's own: words begin behind spaces, '-' and opening brackets only.
Value title_filter(Budget& budget, const Value& value, Arguments&& arguments) {
  Bound("title", std::move(arguments), {});
  const Value held = soft_text(budget, value);
  const std::string& text = held.text();
  budget.bytes(text.size());
  std::string out;
  for (size_t at = 0; at < text.size();) {
    const auto splits = [&](size_t i) {
      const char32_t code = decode_utf8(text, i).code;
      return is_space(code) ||
             (code < 0x80 && std::string_view("-({[<").find(static_cast<char>(code)) != npos);
    };
    const bool separator = splits(at);
    size_t end = at;
    while (end < text.size() && splits(end) == separator) end += decode_utf8(text, end).size;
    const size_t first = decode_utf8(text, at).size;
    out += upper(std::string_view(text).substr(at, first));
    out += lower(std::string_view(text).substr(at + first, end - at - first));
    at = end;
  }
  return make_string(budget, std::move(out), held.string()->safe);
}

Value replace(Budget& budget, const Value& value, Arguments&& arguments) {
  const Bound bound("replace", std::move(arguments), {"old", "new", "count"}, 2);
  return make_string(
      budget, replaced(budget, to_text(budget, value), to_text(budget, bound[0]),
                       to_text(budget, bound[1]), bound.has_value(2) ? bound.integer(2) : -1));
}

Value indent(Budget& budget, const Value& value, Arguments&& arguments) {
  const Bound bound("indent", std::move(arguments), {"width", "first", "blank"});
  if (!value.is_string()) throw_error("'indent' asks for a text, not for a {}", type_name(value));
  if (value.string()->safe) throw_error("'indent' of a safe text is not supported");
  std::string width = "    ";
  if (bound.has(0) && bound[0].is_string()) {
    width = bound.text(0);
  } else if (bound.has(0)) {
    width.assign(std::min<int64_t>(std::max<int64_t>(bound.integer(0), 0), 1 << 20), ' ');
  }
  const bool blank = bound.truth_or(2, false);
  const std::string text = value.text() + "\n";  // so that an empty last line is a line
  budget.bytes(text.size());
  std::string out;
  bool is_first = true;
  for (const std::string_view line : split_lines(text, false)) {
    const bool indented = is_first ? bound.truth_or(1, false) : blank || !line.empty();
    budget.bytes(line.size() + width.size() + 1);
    if (!is_first) out += '\n';
    if (indented) out += width;
    out += line;
    is_first = false;
  }
  return make_string(budget, std::move(out));
}

Value to_string_filter(Budget& budget, const Value& value, Arguments&& arguments) {
  Bound("string", std::move(arguments), {});
  return soft_text(budget, value);
}

Value safe(Budget& budget, const Value& value, Arguments&& arguments) {
  Bound("safe", std::move(arguments), {});
  return make_string(budget, to_text(budget, value), true);
}

Value escape_always(Budget& budget, const Value& value, Arguments&& arguments) {
  Bound("escape", std::move(arguments), {});
  const auto text = to_text(budget, value);
  budget.bytes(text.size());
  return make_string(budget, escape_html(text), true);
}

Value escape(Budget& budget, const Value& value, Arguments&& arguments) {
  if (value.is_string() && value.string()->safe) return value;
  return escape_always(budget, value, std::move(arguments));
}

Value format(Budget& budget, const Value& value, Arguments&& arguments) {
  const Value text = soft_text(budget, value);
  if (text.string()->safe) throw_error("'format' of a safe text is not supported");
  if (arguments.named.empty()) {
    const Value values = make_tuple(budget, std::move(arguments.positional));
    return make_string(budget, format_percent(budget, text.text(), values));
  }
  if (!arguments.positional.empty()) throw_error("'format': values in place and by name at once");
  std::vector<std::pair<Value, Value>> entries;
  for (auto& [name, named] : arguments.named) {
    entries.emplace_back(make_string(budget, name), std::move(named));
  }
  return make_string(budget,
                     format_percent(budget, text.text(), make_dict(budget, std::move(entries))));
}

Value wordcount(Budget& budget, const Value& value, Arguments&& arguments) {
  Bound("wordcount", std::move(arguments), {});
  const Value held = soft_text(budget, value);
  int64_t words = 0;
  bool inside = false;
  for (size_t at = 0; at < held.text().size();) {
    const Utf8Char c = decode_utf8(held.text(), at);
    at += c.size;
    const bool word = is_letter(c.code) || is_numeric(c.code) || c.code == '_';
    words += word && !inside;
    inside = word;
  }
  return words;
}

Value tojson(Budget& budget, const Value& value, Arguments&& arguments) {
  const Bound bound("tojson", std::move(arguments),
                    {"ensure_ascii", "indent", "separators", "sort_keys"});
  JsonStyle style;
  style.ensure_ascii = bound.truth_or(0, false);
  style.sort_keys = bound.truth_or(3, false);
  if (bound.has_value(1)) {
    style.item_separator = ",";
    if (bound[1].is_string()) {
      style.indent = bound.text(1);
    } else {
      style.indent =
          std::string(std::min<int64_t>(std::max<int64_t>(bound.integer(1), 0), 1 << 20), ' ');
    }
  }
  if (bound.has_value(2)) {
    const std::vector<Value> pair = items_of(budget, bound[2]);
    if (pair.size() != 2 || !pair[0].is_string() || !pair[1].is_string()) {
      throw_error("'separators' of 'tojson' must be two texts");
    }
    style.item_separator = pair[0].text();
    style.key_separator = pair[1].text();
  }
  return make_string(budget, to_json(budget, value, style));
}

// A number as Python's int() and float() read text: spaces around it, '_' between digits.
std::optional<std::string> number_text(std::string_view text) {
  text = strip(text, std::nullopt, Side::kBoth);
  std::string out;
  for (size_t i = 0; i < text.size(); ++i) {
    if (static_cast<unsigned char>(text[i]) >= 0x80) {
      if (!is_decimal_digit(decode_utf8(text, i).code)) return std::nullopt;
      throw_error("a number of other digits than 0 to 9 is not supported");
    }
    const auto digit = [&](size_t at) { return at < text.size() && isxdigit(text[at]); };
    if (text[i] == '_') {
      if (i == 0 || !digit(i - 1) || !digit(i + 1)) return std::nullopt;
      continue;
    }
    out += text[i];
  }
  if (out.empty()) return std::nullopt;
  return out;
}

std::optional<double> parse_float(std::string_view raw) {
  auto text = number_text(raw);
  if (!text) return std::nullopt;
  std::string_view digits = *text;
  const bool negative = digits[0] == '-';
  if (digits[0] == '-' || digits[0] == '+') digits.remove_prefix(1);
  if (digits.empty() || digits[0] == '-') return std::nullopt;
  const std::string word = lower(digits);
  double number = 0;
  if (word == "inf" || word == "infinity") {
    number = INFINITY;
  } else if (word == "nan") {
    number = NAN;
  } else {
    const auto result = std::from_chars(digits.data(), digits.data() + digits.size(), number);
    if (result.ptr != digits.data() + digits.size()) return std::nullopt;
    if (result.ec == std::errc::result_out_of_range) {
      // Too large or too small; strtod tells which.
      number = std::strtod(std::string(digits).c_str(), nullptr);
    } else if (result.ec != std::errc()) {
      return std::nullopt;
    }
  }
  return negative ? -number : number;
}

std::optional<int64_t> parse_integer(std::string_view raw, int64_t base) {
  if (base != 0 && (base < 2 || base > 36)) throw_error("'int': the base {} is not known", base);
  auto text = number_text(raw);
  if (!text) return std::nullopt;
  std::string_view digits = *text;
  const bool negative = digits[0] == '-';
  if (digits[0] == '-' || digits[0] == '+') digits.remove_prefix(1);
  const std::string prefix = lower(digits.substr(0, 2));
  const int64_t meant = prefix == "0x" ? 16 : prefix == "0o" ? 8 : prefix == "0b" ? 2 : 0;
  if (meant != 0 && (base == 0 || base == meant)) {
    digits.remove_prefix(2);
    base = meant;
  }
  if (base == 0) base = 10;
  if (digits.empty() || digits[0] == '-' || digits[0] == '+') return std::nullopt;
  const std::string signed_digits = (negative ? "-" : "") + std::string(digits);
  int64_t number = 0;
  const char* end = signed_digits.data() + signed_digits.size();
  const auto result = std::from_chars(signed_digits.data(), end, number, static_cast<int>(base));
  if (result.ptr != end || result.ec == std::errc::invalid_argument) return std::nullopt;
  if (result.ec == std::errc::result_out_of_range) {
    throw_error("'int': an integer of more than 64 bits");
  }
  return number;
}

std::optional<Value> truncated(double number) {
  if (!std::isfinite(number)) return std::nullopt;
  if (std::fabs(number) >= 9.2e18) throw_error("'int': an integer of more than 64 bits");
  return static_cast<int64_t>(number);
}

Value to_int(Budget& budget, const Value& value, Arguments&& arguments) {
  const Bound bound("int", std::move(arguments), {"default", "base"});
  const Value otherwise = bound.get_or(0, int64_t{0});
  require_defined(value);
  if (value.is_integral()) return value.integer();
  if (value.is_float()) {
    if (std::isinf(value.number())) throw_error("'int' of infinity");
    return truncated(value.number()).value_or(otherwise);
  }
  if (!value.is_string()) return otherwise;
  budget.bytes(value.text().size());
  if (const auto number = parse_integer(value.text(), bound.integer_or(1, 10))) return *number;
  const auto number = parse_float(value.text());
  return number ? truncated(*number).value_or(otherwise) : otherwise;
}

Value to_float(Budget& budget, const Value& value, Arguments&& arguments) {
  const Bound bound("float", std::move(arguments), {"default"});
  const Value otherwise = bound.get_or(0, 0.0);
  require_defined(value);
  if (value.is_number()) return value.number();
  if (!value.is_string()) return otherwise;
  budget.bytes(value.text().size());
  const auto number = parse_float(value.text());
  return number ? Value(*number) : otherwise;
}

Value absolute(Budget&, const Value& value, Arguments&& arguments) {
  Bound("abs", std::move(arguments), {});
  if (value.is_float()) return std::fabs(value.number());
  if (!value.is_integral()) {
    require_defined(value);
    throw_error("'abs' of a {}", type_name(value));
  }
  return value.integer() < 0 ? negative(value) : Value(value.integer());
}

Value round_filter(Budget&, const Value& value, Arguments&& arguments) {
  const Bound bound("round", std::move(arguments), {"precision", "method"});
  const int64_t precision = bound.integer_or(0, 0);
  const std::string method = bound.has(1) ? bound.text(1) : "common";
  if (!value.is_number()) {
    require_defined(value);
    throw_error("'round' of a {}", type_name(value));
  }
  if (precision < 0 || precision > 15) throw_error("'round' to {} digits", precision);
  const double number = value.number();
  if (method == "common") {
    if (value.is_integral()) return value.integer();
    if (!std::isfinite(number)) return number;
    return *parse_float(fmt::format("{:.{}f}", number, precision));
  }
  if (method != "ceil" && method != "floor") {
    throw_error("'round': the method '{}' is not one of common, ceil, floor", method);
  }
  const double scale = std::pow(10.0, static_cast<double>(precision));
  const double scaled = number * scale;
  return (method == "ceil" ? std::ceil(scaled) : std::floor(scaled)) / scale;
}

}  // namespace

const FilterTable& text_filters() {
  static const FilterTable table = {
      {"abs", absolute},
      {"capitalize", by_method<kCapitalize>},
      {"center", center},
      {"e", escape},
      {"escape", escape},
      {"float", to_float},
      {"forceescape", escape_always},
      {"format", format},
      {"indent", indent},
      {"int", to_int},
      {"lower", by_method<kLower>},
      {"replace", replace},
      {"round", round_filter},
      {"safe", safe},
      {"string", to_string_filter},
      {"title", title_filter},
      {"tojson", tojson},
      {"trim", trim},
      {"upper", by_method<kUpper>},
      {"wordcount", wordcount},
  };
  return table;
}

}  // namespace halo::jinja
