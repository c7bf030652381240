// The methods of text, as Python's str has them.
#include <algorithm>
#include <map>

#include "halo/base/utf8.h"
#include "halo/jinja/methods.h"
#include "halo/jinja/operators.h"
#include "halo/jinja/text.h"

namespace halo::jinja {
namespace {

// Calls with one text, its results and the budget they are charged to.
struct Call {
  Budget& budget;
  const String& self;
  const std::string& name;
  Arguments arguments;

  std::string_view text() const { return self.text; }
  Bound bind(std::initializer_list<std::string_view> parameters, size_t num_required = 0) {
    return Bound(name, std::move(arguments), parameters, num_required);
  }
  Value make(std::string out) const { return make_string(budget, std::move(out), self.safe); }
  Value make(std::string_view out) const { return make(std::string(out)); }
  Value parts(const std::vector<std::string_view>& texts, bool tuple = false) const {
    std::vector<Value> items;
    for (const std::string_view part : texts) items.push_back(make(part));
    return tuple ? make_tuple(budget, std::move(items)) : make_list(budget, std::move(items));
  }
};

using Method = Value (*)(Call&);

Value strip_side(Call& call, Side side) {
  const Bound bound = call.bind({"chars"});
  std::optional<std::string_view> chars;
  if (bound.has_value(0)) chars = bound.text(0);
  return call.make(strip(call.text(), chars, side));
}

// The part of the text that optional arguments `start` and `end` leave; nothing if start is behind
// the text.
std::optional<std::string_view> part_of(std::string_view text, const Bound& bound, size_t start,
                                        size_t end, size_t* offset = nullptr) {
  if (!bound.has_value(start) && !bound.has_value(end)) return text;
  const size_t n = num_characters(text);
  const int64_t raw = bound.has_value(start) ? bound.integer(start) : 0;
  if (raw > static_cast<int64_t>(n)) return std::nullopt;
  const size_t from = clamp_index(raw, n);
  const size_t to = clamp_index(bound.has_value(end) ? bound.integer(end) : n, n);
  if (from > to) return std::nullopt;
  if (offset) *offset = from;
  const size_t begin = character_offset(text, from);
  return text.substr(begin, character_offset(text, to) - begin);
}

Value affix(Call& call, bool at_start) {
  const Bound bound = call.bind({"prefix", "start", "end"}, 1);
  const auto part = part_of(call.text(), bound, 1, 2);
  const auto fits = [&](const Value& text) {
    if (!text.is_string()) {
      require_defined(text);
      throw_error("'{}' asks for a text or a tuple of texts, not a {}", call.name, type_name(text));
    }
    return part && (at_start ? part->starts_with(text.text()) : part->ends_with(text.text()));
  };
  const Sequence* sequence = bound[0].sequence();
  if (sequence && sequence->kind == Sequence::Kind::kTuple) {
    return std::ranges::any_of(sequence->items, fits);
  }
  return fits(bound[0]);
}

Value search(Call& call, bool from_end, bool must_find) {
  const Bound bound = call.bind({"sub", "start", "end"}, 1);
  size_t offset = 0;
  const auto part = part_of(call.text(), bound, 1, 2, &offset);
  const std::string& needle = bound.text(0);
  const size_t at = !part      ? npos
                    : from_end ? find_last_text(*part, needle)
                               : find_text(*part, needle);
  if (at != npos) return static_cast<int64_t>(offset + num_characters(part->substr(0, at)));
  if (must_find) throw_error("'{}': the text is not there", call.name);
  return int64_t{-1};
}

Value count(Call& call) {
  const Bound bound = call.bind({"sub", "start", "end"}, 1);
  const auto part = part_of(call.text(), bound, 1, 2);
  const std::string& needle = bound.text(0);
  if (!part) return int64_t{0};
  if (needle.empty()) return static_cast<int64_t>(num_characters(*part) + 1);
  int64_t found = 0;
  for (size_t at = 0; (at = find_text(*part, needle, at)) != npos; at += needle.size()) ++found;
  return found;
}

std::vector<std::string_view> split_at(Call& call, std::string_view separator, int64_t most) {
  std::vector<std::string_view> out;
  std::string_view text = call.text();
  for (size_t at; most != 0 && (at = find_text(text, separator)) != npos; --most) {
    call.budget.bytes(sizeof(std::string_view));
    out.push_back(text.substr(0, at));
    text.remove_prefix(at + separator.size());
  }
  out.push_back(text);
  return out;
}

std::vector<std::string_view> split_at_from_end(Call& call, std::string_view separator,
                                                int64_t most) {
  // Found from the end: occurrences may overlap, and the last ones count.
  const std::string back(call.text().rbegin(), call.text().rend());
  const std::string needle(separator.rbegin(), separator.rend());
  std::vector<std::string_view> out;
  size_t begin = 0;
  const auto push = [&](size_t end) {
    call.budget.bytes(sizeof(std::string_view));
    out.push_back(call.text().substr(back.size() - end, end - begin));
  };
  for (size_t at; most != 0 && (at = find_text(back, needle, begin)) != npos; --most) {
    push(at);
    begin = at + needle.size();
  }
  push(back.size());
  std::ranges::reverse(out);
  return out;
}

// The end of the word that text begins with, and the begin of the word that it ends with.
size_t word_end(std::string_view text) {
  size_t at = 0;
  while (at < text.size()) {
    const Utf8Char c = decode_utf8(text, at);
    if (is_space(c.code)) break;
    at += c.size;
  }
  return at;
}
size_t word_begin(std::string_view text) {
  size_t at = text.size();
  while (at > 0) {
    size_t begin = at - 1;
    while (begin > 0 && (text[begin] & 0xC0) == 0x80) --begin;
    if (is_space(decode_utf8(text, begin).code)) break;
    at = begin;
  }
  return at;
}

// When the splits are used up, the rest keeps the spaces at its far end.
std::vector<std::string_view> split_at_space(Call& call, int64_t most, bool from_end) {
  std::vector<std::string_view> out;
  std::string_view text = call.text();
  for (;; --most) {
    text = strip(text, std::nullopt, from_end ? Side::kRight : Side::kLeft);
    if (text.empty()) break;
    call.budget.bytes(sizeof(std::string_view));
    if (most == 0) {
      out.push_back(text);
      break;
    }
    const size_t at = from_end ? word_begin(text) : word_end(text);
    out.push_back(from_end ? text.substr(at) : text.substr(0, at));
    text = from_end ? text.substr(0, at) : text.substr(at);
  }
  if (from_end) std::ranges::reverse(out);
  return out;
}

Value split(Call& call, bool from_end) {
  const Bound bound = call.bind({"sep", "maxsplit"});
  const int64_t most = std::max<int64_t>(bound.integer_or(1, -1), -1);
  if (!bound.has_value(0)) return call.parts(split_at_space(call, most, from_end));
  const std::string& separator = bound.text(0);
  if (separator.empty()) throw_error("'{}': the separator is empty", call.name);
  return call.parts(from_end ? split_at_from_end(call, separator, most)
                             : split_at(call, separator, most));
}

Value partition(Call& call, bool from_end) {
  const Bound bound = call.bind({"sep"}, 1);
  const std::string& separator = bound.text(0);
  if (separator.empty()) throw_error("'{}': the separator is empty", call.name);
  const std::string_view text = call.text();
  const size_t at = from_end ? find_last_text(text, separator) : find_text(text, separator);
  if (at == npos) {
    return from_end ? call.parts({"", "", text}, true) : call.parts({text, "", ""}, true);
  }
  return call.parts({text.substr(0, at), separator, text.substr(at + separator.size())}, true);
}

Value split_into_lines(Call& call) {
  const Bound bound = call.bind({"keepends"});
  return call.parts(split_lines(call.text(), bound.truth_or(0, false)));
}

void refuse_safe(const Call& call) {
  if (call.self.safe) throw_error("'{}' of a safe text is not supported", call.name);
}

Value replace(Call& call) {
  refuse_safe(call);
  const Bound bound = call.bind({"old", "new", "count"}, 2);
  return call.make(
      replaced(call.budget, call.text(), bound.text(0), bound.text(1), bound.integer_or(2, -1)));
}

Value join(Call& call) {
  refuse_safe(call);
  const Bound bound = call.bind({"iterable"}, 1);
  std::string out;
  for (bool first = true; const Value& item : iterate(call.budget, bound[0])) {
    if (!item.is_string()) throw_error("'join': an item is a {}, not a text", type_name(item));
    call.budget.bytes(call.text().size() + item.text().size());
    if (!first) out += call.text();
    first = false;
    out += item.text();
  }
  return call.make(std::move(out));
}

Value without_affix(Call& call, bool at_start) {
  const Bound bound = call.bind({"affix"}, 1);
  const std::string& affix = bound.text(0);
  std::string_view text = call.text();
  if (at_start && text.starts_with(affix)) text.remove_prefix(affix.size());
  if (!at_start && text.ends_with(affix)) text.remove_suffix(affix.size());
  return call.make(text);
}

// Fills `text` up to `width` characters: `left` of the missing ones before it.
Value padded(Call& call, size_t (*left)(size_t missing, size_t width)) {
  const Bound bound = call.bind({"width", "fillchar"}, 1);
  const std::string fill = bound.has(1) ? bound.text(1) : " ";
  if (num_characters(fill) != 1) throw_error("'{}' fills with one character", call.name);
  const auto width = static_cast<size_t>(std::max<int64_t>(bound.integer(0), 0));
  const size_t size = num_characters(call.text());
  if (size >= width) return call.make(call.text());
  if (width > size_t{1} << 40) throw_error("'{}' to {} characters", call.name, width);
  call.budget.bytes((width - size) * fill.size());
  const size_t before = left(width - size, width);
  std::string out;
  for (size_t i = 0; i < before; ++i) out += fill;
  out += call.text();
  for (size_t i = before; i < width - size; ++i) out += fill;
  return call.make(std::move(out));
}

Value zero_fill(Call& call) {
  const Bound bound = call.bind({"width"}, 1);
  const auto width = static_cast<size_t>(std::max<int64_t>(bound.integer(0), 0));
  const size_t size = num_characters(call.text());
  if (size >= width) return call.make(call.text());
  call.budget.bytes(width - size);
  std::string out(call.text());
  const bool has_sign = !out.empty() && (out[0] == '+' || out[0] == '-');
  return call.make(out.insert(has_sign, width - size, '0'));
}

// True for a text that is not empty and of whose characters all are so.
template <bool (*is)(char32_t)>
Value all_are(Call& call) {
  call.bind({});
  const std::string_view text = call.text();
  for (size_t at = 0; at < text.size();) {
    const Utf8Char c = decode_utf8(text, at);
    if (!is(c.code)) return false;
    at += c.size;
  }
  return !text.empty();
}

Value is_ascii(Call& call) {
  call.bind({});
  return std::ranges::all_of(call.text(), [](char byte) { return (byte & 0x80) == 0; });
}

Value has_case(Call& call, Case wanted) {
  call.bind({});
  return is_all_of_case(call.text(), wanted);
}

template <std::string (*change)(std::string_view)>
Value change_case(Call& call) {
  call.bind({});
  return call.make(change(call.text()));
}

// Python's casefold differs from lower where a character has no lower case of its own.
Value case_fold(Call& call) {
  call.bind({});
  if (!std::ranges::all_of(call.text(), [](char byte) { return (byte & 0x80) == 0; })) {
    throw_error("'casefold' of text beyond ASCII is not supported");
  }
  return call.make(lower(call.text()));
}

Value format(Call& call) {
  refuse_safe(call);
  return call.make(format_braces(call.budget, call.text(), call.arguments));
}

size_t center_left(size_t missing, size_t width) {
  return missing / 2 + (missing & width & 1);
}

bool is_alphanumeric(char32_t code) {
  return is_letter(code) || is_numeric(code);
}

const std::map<std::string_view, Method>& methods() {
  static const std::map<std::string_view, Method> table = {
      {"capitalize", change_case<capitalize>},
      {"casefold", case_fold},
      {"center", [](Call& call) { return padded(call, center_left); }},
      {"count", count},
      {"endswith", [](Call& call) { return affix(call, false); }},
      {"find", [](Call& call) { return search(call, false, false); }},
      {"format", format},
      {"index", [](Call& call) { return search(call, false, true); }},
      {"isalnum", all_are<is_alphanumeric>},
      {"isalpha", all_are<is_letter>},
      {"isascii", is_ascii},
      {"isdecimal", all_are<is_decimal_digit>},
      {"isdigit", all_are<is_digit>},
      {"islower", [](Call& call) { return has_case(call, Case::kLower); }},
      {"isnumeric", all_are<is_numeric>},
      {"isspace", all_are<is_space>},
      {"isupper", [](Call& call) { return has_case(call, Case::kUpper); }},
      {"join", join},
      {"ljust", [](Call& call) { return padded(call, [](size_t, size_t) { return size_t{0}; }); }},
      {"lower", change_case<lower>},
      {"lstrip", [](Call& call) { return strip_side(call, Side::kLeft); }},
      {"partition", [](Call& call) { return partition(call, false); }},
      {"removeprefix", [](Call& call) { return without_affix(call, true); }},
      {"removesuffix", [](Call& call) { return without_affix(call, false); }},
      {"replace", replace},
      {"rfind", [](Call& call) { return search(call, true, false); }},
      {"rindex", [](Call& call) { return search(call, true, true); }},
      {"rjust", [](Call& call) { return padded(call, [](size_t n, size_t) { return n; }); }},
      {"rpartition", [](Call& call) { return partition(call, true); }},
      {"rsplit", [](Call& call) { return split(call, true); }},
      {"rstrip", [](Call& call) { return strip_side(call, Side::kRight); }},
      {"split", [](Call& call) { return split(call, false); }},
      {"splitlines", split_into_lines},
      {"startswith", [](Call& call) { return affix(call, true); }},
      {"strip", [](Call& call) { return strip_side(call, Side::kBoth); }},
      {"swapcase", change_case<swap_case>},
      {"title", change_case<title>},
      {"upper", change_case<upper>},
      {"zfill", zero_fill},
  };
  return table;
}

}  // namespace

bool is_text_method(std::string_view name) {
  return methods().contains(name);
}

Value call_text_method(Budget& budget, const String& self, const std::string& name,
                       Arguments arguments) {
  budget.bytes(self.text.size());
  Call call{budget, self, name, std::move(arguments)};
  return methods().at(name)(call);
}

}  // namespace halo::jinja
