#include "halo/jinja/show.h"

#include <algorithm>
#include <cmath>

#include "halo/base/utf8.h"
#include "halo/jinja/operators.h"
#include "halo/jinja/text.h"

namespace halo::jinja {
namespace {

std::string quoted(std::string_view text) {
  const bool has_single = text.find('\'') != npos, has_double = text.find('"') != npos;
  const char quote = has_single && !has_double ? '"' : '\'';
  std::string out(1, quote);
  for (size_t at = 0; at < text.size();) {
    const Utf8Char c = decode_utf8(text, at);
    const std::string_view character = text.substr(at, c.size);
    at += c.size;
    if (c.code == static_cast<unsigned char>(quote) || c.code == '\\') {
      out += '\\';
      out += character;
    } else if (c.code == '\n') {
      out += "\\n";
    } else if (c.code == '\r') {
      out += "\\r";
    } else if (c.code == '\t') {
      out += "\\t";
    } else if (is_printable(c.code)) {
      out += character;
    } else if (c.code <= 0xFF) {
      out += fmt::format("\\x{:02x}", static_cast<uint32_t>(c.code));
    } else if (c.code <= 0xFFFF) {
      out += fmt::format("\\u{:04x}", static_cast<uint32_t>(c.code));
    } else {
      out += fmt::format("\\U{:08x}", static_cast<uint32_t>(c.code));
    }
  }
  return out += quote;
}

// Appends the reprs of containers' items; every visit is charged, for what is shared many times
// prints many times.
class Printer {
 public:
  explicit Printer(Budget& budget) : budget_(budget) {}

  void repr(const Value& value) {
    budget_.step();
    if (value.is_undefined()) {
      add("Undefined");
    } else if (value.is_string()) {
      budget_.bytes(value.text().size());
      add(value.string()->safe ? "Markup(" + quoted(value.text()) + ")" : quoted(value.text()));
    } else if (const Sequence* sequence = value.sequence()) {
      add_sequence(*sequence);
    } else if (const Dict* dict = value.dict()) {
      add_dict(*dict);
    } else {
      add(scalar(value));
    }
  }

  static std::string scalar(const Value& value) {
    if (value.is_none()) return "None";
    if (value.is_bool()) return value.boolean() ? "True" : "False";
    if (value.is_integer()) return fmt::format("{}", value.integer());
    if (value.is_float()) return float_text(value.number());
    throw_error("a {} cannot be printed", type_name(value));
  }

  std::string take() { return std::move(out_); }

 private:
  void add(std::string_view text) {
    budget_.bytes(text.size());
    out_ += text;
  }

  void add_items(const std::vector<Value>& items, std::string_view open, std::string_view close) {
    add(open);
    for (size_t i = 0; i < items.size(); ++i) {
      if (i > 0) add(", ");
      repr(items[i]);
    }
    add(close);
  }

  void add_sequence(const Sequence& sequence) {
    switch (sequence.kind) {
      case Sequence::Kind::kList:
        return add_items(sequence.items, "[", "]");
      case Sequence::Kind::kTuple:
        return add_items(sequence.items, "(", sequence.items.size() == 1 ? ",)" : ")");
      case Sequence::Kind::kKeys:
        return add_items(sequence.items, "dict_keys([", "])");
      case Sequence::Kind::kValues:
        return add_items(sequence.items, "dict_values([", "])");
      case Sequence::Kind::kItems:
        return add_items(sequence.items, "dict_items([", "])");
      case Sequence::Kind::kRange:
        throw_error("a range cannot be printed; 'range(...) | list' can");
      case Sequence::Kind::kIterator:
        throw_error("what a filter such as 'map' gives cannot be printed; '... | list' can");
    }
  }

  void add_dict(const Dict& dict) {
    add("{");
    for (bool first = true; const auto& [key, value] : dict.entries) {
      if (!first) add(", ");
      first = false;
      repr(key);
      add(": ");
      repr(value);
    }
    add("}");
  }

  Budget& budget_;
  std::string out_;
};

class JsonWriter {
 public:
  JsonWriter(Budget& budget, const JsonStyle& style) : budget_(budget), style_(style) {}

  void write(const Value& value, int depth) {
    budget_.step();
    const Sequence* sequence = value.sequence();
    if (value.is_string()) {
      add_string(value.text());
    } else if (sequence && (sequence->kind == Sequence::Kind::kList ||
                            sequence->kind == Sequence::Kind::kTuple)) {
      write_list(sequence->items, depth);
    } else if (const Dict* dict = value.dict()) {
      write_dict(*dict, depth);
    } else {
      add(scalar(value));
    }
  }

  std::string take() { return std::move(out_); }

 private:
  static std::string scalar(const Value& value) {
    if (value.is_none()) return "null";
    if (value.is_bool()) return value.boolean() ? "true" : "false";
    if (value.is_integer()) return fmt::format("{}", value.integer());
    if (value.is_float()) {
      const double number = value.number();
      if (std::isnan(number)) return "NaN";
      if (std::isinf(number)) return number > 0 ? "Infinity" : "-Infinity";
      return float_text(number);
    }
    require_defined(value);
    throw_error("tojson: a {} is not JSON", type_name(value));
  }

  void add(std::string_view text) {
    budget_.bytes(text.size());
    out_ += text;
  }

  void add_string(std::string_view text) {
    budget_.bytes(text.size());
    out_ += '"';
    for (size_t at = 0; at < text.size();) {
      const Utf8Char c = decode_utf8(text, at);
      add_character(c.code, text.substr(at, c.size));
      at += c.size;
    }
    out_ += '"';
  }

  void add_character(char32_t code, std::string_view character) {
    static constexpr std::string_view kShort = "\"\\\n\r\t\f\b", kLetters = "\"\\nrtfb";
    const size_t known = code < 0x80 ? kShort.find(static_cast<char>(code)) : npos;
    if (known != npos) {
      out_ += '\\';
      out_ += kLetters[known];
    } else if (code >= 0x20 && (!style_.ensure_ascii || code < 0x7F)) {
      out_ += character;
    } else if (code <= 0xFFFF) {
      add_escape(code);
    } else {
      add_escape(0xD800 + ((code - 0x10000) >> 10));
      add_escape(0xDC00 + ((code - 0x10000) & 0x3FF));
    }
  }
  void add_escape(char32_t unit) { add(fmt::format("\\u{:04x}", static_cast<uint32_t>(unit))); }

  void new_line(int depth) {
    if (!style_.indent) return;
    add("\n");
    for (int i = 0; i < depth; ++i) add(*style_.indent);
  }

  void write_list(const std::vector<Value>& items, int depth) {
    if (items.empty()) return add("[]");
    add("[");
    for (size_t i = 0; i < items.size(); ++i) {
      if (i > 0) add(style_.item_separator);
      new_line(depth + 1);
      write(items[i], depth + 1);
    }
    new_line(depth);
    add("]");
  }

  void write_dict(const Dict& dict, int depth) {
    if (dict.entries.empty()) return add("{}");
    std::vector<const std::pair<Value, Value>*> entries;
    for (const auto& entry : dict.entries) entries.push_back(&entry);
    if (style_.sort_keys) {
      std::ranges::stable_sort(
          entries, [&](const auto* a, const auto* b) { return less(budget_, a->first, b->first); });
    }
    add("{");
    for (bool first = true; const auto* entry : entries) {
      if (!first) add(style_.item_separator);
      first = false;
      new_line(depth + 1);
      if (entry->first.is_string()) {
        add_string(entry->first.text());
      } else if (entry->first.is_undefined() || entry->first.sequence()) {
        throw_error("tojson: a key must be text or a number, not a {}", type_name(entry->first));
      } else {
        add_string(scalar(entry->first));
      }
      add(style_.key_separator);
      write(entry->second, depth + 1);
    }
    new_line(depth);
    add("}");
  }

  Budget& budget_;
  const JsonStyle& style_;
  std::string out_;
};

}  // namespace

std::string float_text(double number) {
  if (std::isnan(number)) return "nan";
  if (std::isinf(number)) return number > 0 ? "inf" : "-inf";
  std::string text = fmt::format("{}", number);  // the shortest that reads back; 1e+16, 1e-05
  if (text.find_first_of(".e") == npos) text += ".0";
  return text;
}

std::string to_text(Budget& budget, const Value& value) {
  if (value.is_undefined()) return "";
  if (value.is_string()) {
    budget.bytes(value.text().size());
    return value.text();
  }
  if (!value.sequence() && !value.dict()) return Printer::scalar(value);
  return to_repr(budget, value);
}

std::string to_repr(Budget& budget, const Value& value) {
  Printer printer(budget);
  printer.repr(value);
  return printer.take();
}

std::string to_json(Budget& budget, const Value& value, const JsonStyle& style) {
  JsonWriter writer(budget, style);
  writer.write(value, 0);
  return writer.take();
}

}  // namespace halo::jinja
