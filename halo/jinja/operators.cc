#include "halo/jinja/operators.h"

#include <algorithm>
#include <cmath>

#include "halo/jinja/methods.h"
#include "halo/jinja/text.h"

namespace halo::jinja {
namespace {

bool same_order_kind(const Sequence& a, const Sequence& b) {
  const bool ordered = a.kind == Sequence::Kind::kList || a.kind == Sequence::Kind::kTuple;
  return ordered && a.kind == b.kind;
}

bool equal_sequences(Budget& budget, const Sequence& a, const Sequence& b) {
  if (&a == &b) return true;
  const bool ranges = a.kind == Sequence::Kind::kRange && b.kind == a.kind;
  if (!ranges && !same_order_kind(a, b)) {
    const auto is_view = [](Sequence::Kind kind) {
      return kind == Sequence::Kind::kKeys || kind == Sequence::Kind::kItems;
    };
    if (is_view(a.kind) && is_view(b.kind)) throw_error("views of mappings cannot be compared");
    return false;
  }
  return a.items.size() == b.items.size() &&
         std::ranges::equal(a.items, b.items,
                            [&](const Value& x, const Value& y) { return equal(budget, x, y); });
}

bool equal_dicts(Budget& budget, const Dict& a, const Dict& b) {
  if (a.entries.size() != b.entries.size()) return false;
  for (const auto& [key, value] : a.entries) {
    const auto entry = find_entry(budget, b, key);
    if (!entry || !equal(budget, value, b.entries[*entry].second)) return false;
  }
  return true;
}

std::partial_ordering order_numbers(const Value& a, const Value& b) {
  if (a.is_integral() && b.is_integral()) return a.integer() <=> b.integer();
  // Has room for every integer of 64 bits.
  const auto wide = [](const Value& value) -> long double {
    return value.is_float() ? value.number() : static_cast<long double>(value.integer());
  };
  return wide(a) <=> wide(b);
}

bool find_in_items(Budget& budget, const Items& items, const Value& item) {
  return std::ranges::any_of(items, [&](const Value& x) { return equal(budget, x, item); });
}

std::string describe(const Value& object, std::string_view name) {
  return fmt::format("'{} object' has no attribute '{}'", type_name(object), name);
}

// What getattr of Python finds, if it does.
std::optional<Value> python_attribute(const Value& object, std::string_view name) {
  if (name.starts_with("__")) {
    throw_error("access to attribute '{}' of a {} is unsafe", name, type_name(object));
  }
  if (Namespace* name_space = object.name_space()) {
    const auto found = name_space->attributes.find(name);
    if (found == name_space->attributes.end()) return std::nullopt;
    return found->second;
  }
  if (object.loop()) return loop_attribute(object, name);
  switch (attribute_kind(object, name)) {
    case AttributeKind::kAbsent:
      return std::nullopt;
    case AttributeKind::kUnsafe:
      return Value::undefined(
          fmt::format("access to attribute '{}' of a {} is unsafe", name, type_name(object)));
    case AttributeKind::kMethod:
      return make_method(object, name);
    case AttributeKind::kUnsupported:
      break;
  }
  throw_error("attribute '{}' of a {} is not supported", name, type_name(object));
}

struct SliceBounds {
  int64_t from, to, step;
};

// As Python's slice.indices.
SliceBounds slice_bounds(const Value& from, const Value& to, const Value& step, size_t size) {
  const auto absent = [](const Value& value) { return value.is_none(); };
  for (const Value* bound : {&from, &to, &step}) {
    if (!absent(*bound) && !bound->is_integral()) {
      require_defined(*bound);
      throw_error("a bound of a slice is a {}, not an integer", type_name(*bound));
    }
  }
  const auto n = static_cast<int64_t>(size);
  SliceBounds out{0, n, absent(step) ? 1 : step.integer()};
  if (out.step == 0) throw_error("the step of a slice is zero");
  const bool back = out.step < 0;
  const int64_t low = back ? -1 : 0, high = back ? n - 1 : n;
  const auto bound = [&](const Value& value, int64_t otherwise) {
    if (absent(value)) return otherwise;
    const int64_t index = value.integer();
    return std::clamp(index < 0 ? std::max(index, -n - 1) + n : index, low, high);
  };
  out.from = bound(from, back ? high : low);
  out.to = bound(to, back ? low : high);
  // Larger steps reach no further.
  out.step = std::clamp(out.step, -n - 1, n + 1);
  return out;
}

}  // namespace

bool equal(Budget& budget, const Value& a, const Value& b) {
  budget.step();
  if (a.is_number() && b.is_number()) return order_numbers(a, b) == 0;
  if (a.is_string() && b.is_string()) {
    if (a.text().size() != b.text().size()) return false;
    budget.bytes(a.text().size());
    return a.text() == b.text();
  }
  if (a.sequence() && b.sequence()) return equal_sequences(budget, *a.sequence(), *b.sequence());
  if (a.dict() && b.dict()) return equal_dicts(budget, *a.dict(), *b.dict());
  if (a.is_none() || b.is_none()) return a.is_none() && b.is_none();
  if (a.is_undefined() || b.is_undefined()) return a.is_undefined() && b.is_undefined();
  if (a.callable() && b.callable()) throw_error("functions cannot be compared");
  return a.address() != nullptr && a.address() == b.address();
}

std::partial_ordering order(Budget& budget, const Value& a, const Value& b) {
  budget.step();
  if (a.is_number() && b.is_number()) return order_numbers(a, b);
  if (a.is_string() && b.is_string()) {
    budget.bytes(std::min(a.text().size(), b.text().size()));
    return a.text() <=> b.text();  // UTF-8 sorts as its characters do
  }
  require_defined(a);
  require_defined(b);
  if (a.sequence() && b.sequence() && same_order_kind(*a.sequence(), *b.sequence())) {
    const std::vector<Value>&x = a.sequence()->items, &y = b.sequence()->items;
    for (size_t i = 0; i < std::min(x.size(), y.size()); ++i) {
      if (!equal(budget, x[i], y[i])) return order(budget, x[i], y[i]);
    }
    return x.size() <=> y.size();
  }
  throw_error("a {} and a {} have no order", type_name(a), type_name(b));
}

bool contains(Budget& budget, const Value& container, const Value& item) {
  if (container.is_undefined()) return false;
  if (container.is_string()) {
    if (!item.is_string()) {
      throw_error("'in' a text asks for a text, not for a {}", type_name(item));
    }
    budget.bytes(container.text().size());
    return find_text(container.text(), item.text()) != npos;
  }
  if (const Dict* dict = container.dict()) return find_entry(budget, *dict, item).has_value();
  return find_in_items(budget, iterate(budget, container), item);
}

std::optional<size_t> find_entry(Budget& budget, const Dict& dict, const Value& key) {
  if (key.is_string()) {
    budget.bytes(key.text().size());
    const auto found = dict.strings.find(key.text());
    if (found == dict.strings.end()) return std::nullopt;
    return found->second;
  }
  require_hashable(key);
  if (dict.strings.size() == dict.entries.size()) return std::nullopt;
  for (size_t i = 0; i < dict.entries.size(); ++i) {
    if (equal(budget, dict.entries[i].first, key)) return i;
  }
  return std::nullopt;
}

Value get_attribute(Budget& budget, const Value& object, std::string_view name) {
  require_defined(object);
  budget.bytes(name.size());
  if (auto value = python_attribute(object, name)) return *std::move(value);
  if (const Dict* dict = object.dict()) {
    if (const Value* value = dict->find(name)) return *value;
  }
  return Value::undefined(describe(object, name));
}

Value get_item(Budget& budget, const Value& object, const Value& key) {
  require_defined(object);
  const Sequence* sequence = object.sequence();
  if (const Dict* dict = object.dict()) {
    const bool hashable = !key.dict() && !key.sequence();
    const auto entry = hashable ? find_entry(budget, *dict, key) : std::nullopt;
    if (entry) return dict->entries[*entry].second;
  } else if (key.is_integral() && object.is_string()) {
    budget.bytes(object.text().size());
    const auto n = static_cast<int64_t>(num_characters(object.text()));
    const int64_t index = key.integer() < 0 ? key.integer() + n : key.integer();
    if (index >= 0 && index < n) {
      const size_t at = character_offset(object.text(), index);
      return make_string(budget,
                         object.text().substr(at, character_offset(object.text().substr(at), 1)),
                         object.string()->safe);
    }
  } else if (key.is_integral() && sequence && sequence->kind <= Sequence::Kind::kRange) {
    const auto n = static_cast<int64_t>(sequence->items.size());
    const int64_t index = key.integer() < 0 ? key.integer() + n : key.integer();
    if (index >= 0 && index < n) return sequence->items[index];
  }
  if (key.is_string()) {
    if (auto value = python_attribute(object, key.text())) return *std::move(value);
    return Value::undefined(describe(object, key.text()));
  }
  return Value::undefined(fmt::format("a {} has no such element", type_name(object)));
}

Value get_slice(Budget& budget, const Value& object, const Value& from, const Value& to,
                const Value& step) {
  require_defined(object);
  const Sequence* sequence = object.sequence();
  const bool sliceable = sequence && sequence->kind <= Sequence::Kind::kRange;
  if (!object.is_string() && !sliceable) {
    throw_error("a {} has no slices", type_name(object));
  }
  if (object.is_string()) budget.bytes(object.text().size());
  const size_t size = object.is_string() ? num_characters(object.text()) : sequence->items.size();
  const SliceBounds bounds = slice_bounds(from, to, step, size);
  const auto going = [&](int64_t i) { return bounds.step > 0 ? i < bounds.to : i > bounds.to; };
  if (sequence) {
    std::vector<Value> items;
    for (int64_t i = bounds.from; going(i); i += bounds.step) items.push_back(sequence->items[i]);
    return make_sequence(budget, sequence->kind, std::move(items));
  }
  const std::string& text = object.text();
  std::string out;
  if (bounds.step == 1) {
    const size_t begin = character_offset(text, bounds.from);
    const size_t end = character_offset(text, std::max(bounds.from, bounds.to));
    out = text.substr(begin, end - begin);
  } else {
    budget.bytes(size * sizeof(std::string_view));
    const auto all = characters(text);
    for (int64_t i = bounds.from; going(i); i += bounds.step) out += all[i];
  }
  return make_string(budget, std::move(out), object.string()->safe);
}

size_t length(Budget& budget, const Value& value) {
  if (value.is_undefined()) return 0;
  if (value.is_string()) {
    budget.bytes(value.text().size());
    return num_characters(value.text());
  }
  if (const Dict* dict = value.dict()) return dict->entries.size();
  if (Loop* loop = value.loop()) return loop->length();
  const Sequence* sequence = value.sequence();
  if (!sequence || sequence->kind == Sequence::Kind::kIterator) {
    throw_error("a {} has no length", type_name(value));
  }
  return sequence->items.size();
}

bool is_iterable(const Value& value) {
  return value.is_undefined() || value.is_string() || value.dict() || value.sequence() ||
         value.loop();
}

Items iterate(Budget& budget, const Value& value) {
  const Sequence* sequence = value.sequence();
  if (sequence && sequence->kind != Sequence::Kind::kIterator) {
    budget.step(sequence->items.size());
    return Items(value.sequence_ref());
  }
  return Items(make_list(budget, items_of(budget, value)).sequence_ref());
}

std::vector<Value> items_of(Budget& budget, const Value& value) {
  std::vector<Value> items;
  if (value.is_undefined()) return items;
  if (value.is_string()) {
    budget.bytes(value.text().size() * sizeof(std::string_view));
    for (const std::string_view c : characters(value.text())) {
      items.push_back(make_string(budget, std::string(c), value.string()->safe));
    }
  } else if (const Dict* dict = value.dict()) {
    budget.bytes(dict->entries.size() * sizeof(Value));
    for (const auto& [key, unused] : dict->entries) items.push_back(key);
  } else if (const Sequence* sequence = value.sequence()) {
    if (sequence->running) {
      throw_error("an iterator that a loop is in, or broke off, cannot be used; make it a list");
    }
    budget.bytes(sequence->items.size() * sizeof(Value));
    items.assign(sequence->items.begin() + sequence->taken, sequence->items.end());
    if (sequence->kind == Sequence::Kind::kIterator) sequence->taken = sequence->items.size();
  } else {
    throw_error("a {} cannot be iterated over", type_name(value));
  }
  return items;
}

size_t clamp_index(int64_t index, size_t size) {
  const auto n = static_cast<int64_t>(size);
  return index < 0 ? std::max<int64_t>(0, std::max(index, -n) + n) : std::min(index, n);
}

}  // namespace halo::jinja
