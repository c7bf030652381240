#include "halo/jinja/methods.h"

#include <algorithm>

#include "halo/jinja/operators.h"

namespace halo::jinja {
namespace {

using Names = std::initializer_list<std::string_view>;

bool among(std::string_view name, Names names) {
  return std::ranges::find(names, name) != names.end();
}

AttributeKind kind_among(std::string_view name, Names methods, Names unsafe, Names unsupported) {
  if (among(name, methods)) return AttributeKind::kMethod;
  if (among(name, unsafe)) return AttributeKind::kUnsafe;
  return among(name, unsupported) ? AttributeKind::kUnsupported : AttributeKind::kAbsent;
}

AttributeKind text_attribute(std::string_view name) {
  if (is_text_method(name)) return AttributeKind::kMethod;
  return kind_among(name, {}, {},
                    {"encode", "expandtabs", "format_map", "isidentifier", "isprintable", "istitle",
                     "maketrans", "translate"});
}

AttributeKind sequence_attribute(Sequence::Kind kind, std::string_view name) {
  switch (kind) {
    case Sequence::Kind::kList:
      return kind_among(name, {"copy", "count", "index"},
                        {"append", "clear", "extend", "insert", "pop", "remove", "reverse", "sort"},
                        {});
    case Sequence::Kind::kTuple:
      return kind_among(name, {"count", "index"}, {}, {});
    case Sequence::Kind::kRange:
      return kind_among(name, {"count", "index"}, {}, {"start", "stop", "step"});
    case Sequence::Kind::kIterator:
      return kind_among(name, {}, {"gi_code", "gi_frame"},
                        {"close", "gi_running", "gi_yieldfrom", "send", "throw"});
    default:
      return kind_among(name, {}, {}, {"isdisjoint", "mapping"});
  }
}

Value entries_of(Budget& budget, const Dict& dict, Sequence::Kind kind) {
  std::vector<Value> items;
  for (const auto& [key, value] : dict.entries) {
    if (kind == Sequence::Kind::kKeys) {
      items.push_back(key);
    } else if (kind == Sequence::Kind::kValues) {
      items.push_back(value);
    } else {
      items.push_back(make_tuple(budget, {key, value}));
    }
  }
  return make_sequence(budget, kind, std::move(items));
}

Value call_dict_method(Budget& budget, const Value& self, const std::string& name,
                       Arguments arguments) {
  const Dict& dict = *self.dict();
  if (name == "get") {
    if (!arguments.named.empty()) throw_error("'get' takes no arguments by name");
    const Bound bound(name, std::move(arguments), {"key", "default"}, 1);
    const auto entry = find_entry(budget, dict, bound[0]);
    return entry ? dict.entries[*entry].second : bound.get_or(1, None{});
  }
  Bound(name, std::move(arguments), {});
  if (name == "keys") return entries_of(budget, dict, Sequence::Kind::kKeys);
  if (name == "values") return entries_of(budget, dict, Sequence::Kind::kValues);
  if (name == "items") return entries_of(budget, dict, Sequence::Kind::kItems);
  return self;  // copy
}

Value call_sequence_method(Budget& budget, const Value& self, const std::string& name,
                           Arguments arguments) {
  const std::vector<Value>& items = self.sequence()->items;
  if (name == "copy") {
    Bound(name, std::move(arguments), {});
    return self;
  }
  const Bound bound(name, std::move(arguments), {"value", "start", "stop"}, 1);
  if (name == "count") {
    if (bound.has(1)) throw_error("'count' of a {} takes one argument", type_name(self));
    return int64_t{std::ranges::count_if(
        items, [&](const Value& item) { return equal(budget, item, bound[0]); })};
  }
  const size_t from = clamp_index(bound.integer_or(1, 0), items.size());
  const size_t to = clamp_index(bound.integer_or(2, items.size()), items.size());
  for (size_t i = from; i < to; ++i) {
    if (equal(budget, items[i], bound[0])) return static_cast<int64_t>(i);
  }
  throw_error("'index': the value is not in the {}", type_name(self));
}

Value call_loop_method(Budget& budget, Loop& loop, const std::string& name, Arguments arguments) {
  if (!arguments.named.empty()) throw_error("'{}' takes no arguments by name", name);
  std::vector<Value>& values = arguments.positional;
  if (name == "cycle") {
    if (values.empty()) throw_error("'cycle' needs an argument");
    return values[loop.index % values.size()];
  }
  Value asked = make_tuple(budget, std::move(values));
  if (holds_state(asked)) throw_error("'changed' of a namespace or a loop is not supported");
  if (!loop.changed.is_undefined() && equal(budget, loop.changed, asked)) return false;
  loop.changed = std::move(asked);
  return true;
}

}  // namespace

AttributeKind attribute_kind(const Value& object, std::string_view name) {
  if (object.is_string()) return text_attribute(name);
  if (object.dict()) {
    return kind_among(name, {"copy", "get", "items", "keys", "values"},
                      {"clear", "pop", "popitem", "setdefault", "update"}, {"fromkeys"});
  }
  if (const Sequence* sequence = object.sequence()) return sequence_attribute(sequence->kind, name);
  if (object.is_integral()) {
    return kind_among(name, {}, {},
                      {"as_integer_ratio", "bit_count", "bit_length", "conjugate", "denominator",
                       "from_bytes", "imag", "numerator", "real", "to_bytes"});
  }
  if (object.is_float()) {
    return kind_among(
        name, {}, {},
        {"as_integer_ratio", "conjugate", "fromhex", "hex", "imag", "is_integer", "real"});
  }
  if (object.callable()) return AttributeKind::kUnsupported;
  return AttributeKind::kAbsent;
}

Value call_method(Budget& budget, const Value& self, const std::string& name, Arguments arguments) {
  if (self.is_string()) {
    return call_text_method(budget, *self.string(), name, std::move(arguments));
  }
  if (self.dict()) return call_dict_method(budget, self, name, std::move(arguments));
  if (Loop* loop = self.loop()) return call_loop_method(budget, *loop, name, std::move(arguments));
  return call_sequence_method(budget, self, name, std::move(arguments));
}

std::optional<Value> loop_attribute(const Value& value, std::string_view name) {
  Loop& loop = *value.loop();
  if (name == "index0") return loop.index;
  if (name == "index") return loop.index + 1;
  if (name == "first") return loop.index == 0;
  if (name == "last") return !loop.has(loop.index + 1);
  if (name == "length") return loop.length();
  if (name == "revindex0") return loop.length() - loop.index - 1;
  if (name == "revindex") return loop.length() - loop.index;
  if (name == "depth0") return loop.depth;
  if (name == "depth") return loop.depth + 1;
  if (name == "previtem") {
    return loop.index > 0 ? loop.items[loop.index - 1]
                          : Value::undefined("there is no previous item");
  }
  if (name == "nextitem") {
    return loop.has(loop.index + 1) ? loop.items[loop.index + 1]
                                    : Value::undefined("there is no next item");
  }
  if (name == "cycle" || name == "changed") return make_method(value, name);
  if (name.starts_with("_")) throw_error("access to attribute '{}' of a loop is unsafe", name);
  return std::nullopt;
}

}  // namespace halo::jinja
