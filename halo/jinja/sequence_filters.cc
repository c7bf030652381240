// Filters on lists, mappings and other values that are gone through.
#include <algorithm>
#include <unordered_set>

#include "halo/jinja/filters.h"
#include "halo/jinja/methods.h"
#include "halo/jinja/operators.h"
#include "halo/jinja/show.h"
#include "halo/jinja/text.h"

namespace halo::jinja {
namespace {

Value make_iterator(Budget& budget, std::vector<Value> items) {
  return make_sequence(budget, Sequence::Kind::kIterator, std::move(items));
}

// A path such as "function.name" or "0.role" into an item; an empty one is the item itself.
class AttributePath {
 public:
  AttributePath(Budget& budget, const Value& attribute) {
    if (attribute.is_undefined() || attribute.is_none()) return;
    if (!attribute.is_string()) {
      parts_.push_back(attribute);
      return;
    }
    const std::string& path = attribute.text();
    for (size_t begin = 0;;) {
      const size_t end = std::min(path.find('.', begin), path.size());
      const std::string part = path.substr(begin, end - begin);
      const bool digits = !part.empty() && part.size() < 19 &&
                          std::ranges::all_of(part, [](char c) { return c >= '0' && c <= '9'; });
      parts_.push_back(digits ? Value(int64_t{std::stoll(part)}) : make_string(budget, part));
      if (end == path.size()) break;
      begin = end + 1;
    }
  }

  Value of(Budget& budget, Value item, const Value& otherwise = None{}) const {
    for (const Value& part : parts_) {
      budget.step();
      item = get_item(budget, item, part);
      if (item.is_undefined() && !otherwise.is_none()) item = otherwise;
    }
    return item;
  }

 private:
  std::vector<Value> parts_;
};

Value without_case(Budget& budget, const Value& value) {
  if (!value.is_string()) return value;
  return make_string(budget, lower(value.text()), value.string()->safe);
}

// Items sorted by keys, stable also when reversed.
std::vector<Value> sorted(Budget& budget, std::vector<std::pair<Value, Value>> keyed,
                          bool reverse) {
  budget.bytes(keyed.size() * sizeof(keyed[0]));
  std::ranges::stable_sort(keyed, [&](const auto& a, const auto& b) {
    return reverse ? less(budget, b.first, a.first) : less(budget, a.first, b.first);
  });
  std::vector<Value> items;
  for (auto& [key, item] : keyed) items.push_back(std::move(item));
  return items;
}

Value sort(Budget& budget, const Value& value, Arguments&& arguments) {
  const Bound bound("sort", std::move(arguments), {"reverse", "case_sensitive", "attribute"});
  std::vector<AttributePath> paths;
  const Value attribute = bound.get_or(2, None{});
  if (attribute.is_string()) {
    for (size_t begin = 0; begin <= attribute.text().size();) {
      const size_t end = std::min(attribute.text().find(',', begin), attribute.text().size());
      paths.emplace_back(budget, make_string(budget, attribute.text().substr(begin, end - begin)));
      begin = end + 1;
    }
  } else {
    paths.emplace_back(budget, attribute);
  }
  std::vector<std::pair<Value, Value>> keyed;
  for (const Value& item : iterate(budget, value)) {
    std::vector<Value> key;
    for (const AttributePath& path : paths) {
      const Value part = path.of(budget, item);
      key.push_back(bound.truth_or(1, false) ? part : without_case(budget, part));
    }
    keyed.emplace_back(make_list(budget, std::move(key)), item);
  }
  return make_list(budget, sorted(budget, std::move(keyed), bound.truth_or(0, false)));
}

Value dictsort(Budget& budget, const Value& value, Arguments&& arguments) {
  const Bound bound("dictsort", std::move(arguments), {"case_sensitive", "by", "reverse"});
  const std::string by = bound.has(1) ? bound.text(1) : "key";
  if (by != "key" && by != "value") throw_error("'dictsort' by '{}', not by key or value", by);
  require_defined(value);
  const Dict* dict = value.dict();
  if (!dict) throw_error("'dictsort' of a {}", type_name(value));
  std::vector<std::pair<Value, Value>> keyed;
  for (const auto& [key, member] : dict->entries) {
    const Value& sort_by = by == "key" ? key : member;
    keyed.emplace_back(bound.truth_or(0, false) ? sort_by : without_case(budget, sort_by),
                       make_tuple(budget, {key, member}));
  }
  return make_list(budget, sorted(budget, std::move(keyed), bound.truth_or(2, false)));
}

// What `unique` has met.
class Seen {
 public:
  // False: an equal one was there.
  bool insert(Budget& budget, const Value& key) {
    require_hashable(key);
    budget.bytes(sizeof(Value) + 32);
    if (key.is_string()) return strings_.insert(key.text()).second;
    for (const Value& other : others_) {
      if (equal(budget, other, key)) return false;
    }
    others_.push_back(key);
    return true;
  }

 private:
  std::unordered_set<std::string> strings_;
  std::vector<Value> others_;
};

Value unique(Budget& budget, const Value& value, Arguments&& arguments) {
  const Bound bound("unique", std::move(arguments), {"case_sensitive", "attribute"});
  const AttributePath path(budget, bound.get_or(1, None{}));
  std::vector<Value> items;
  Seen seen;
  for (const Value& item : iterate(budget, value)) {
    const Value key = path.of(budget, item);
    const bool sensitive = bound.truth_or(0, false);
    if (seen.insert(budget, sensitive ? key : without_case(budget, key))) items.push_back(item);
  }
  return make_iterator(budget, std::move(items));
}

template <bool largest>
Value extreme(Budget& budget, const Value& value, Arguments&& arguments) {
  const Bound bound(largest ? "max" : "min", std::move(arguments), {"case_sensitive", "attribute"});
  const AttributePath path(budget, bound.get_or(1, None{}));
  const Items items = iterate(budget, value);
  if (items.empty()) return Value::undefined("No aggregated item, sequence was empty.");
  const Value* best = nullptr;
  Value best_key;
  for (const Value& item : items) {
    Value key = path.of(budget, item);
    if (!bound.truth_or(0, false)) key = without_case(budget, key);
    if (best && !(largest ? less(budget, best_key, key) : less(budget, key, best_key))) continue;
    best = &item;
    best_key = std::move(key);
  }
  return *best;
}

Value sum(Budget& budget, const Value& value, Arguments&& arguments) {
  const Bound bound("sum", std::move(arguments), {"attribute", "start"});
  const AttributePath path(budget, bound.get_or(0, None{}));
  Value total = bound.get_or(1, int64_t{0});
  if (total.is_string()) throw_error("'sum' of texts; 'join' does that");
  for (const Value& item : iterate(budget, value)) {
    total = compute(budget, Arithmetic::kAdd, total, path.of(budget, item));
  }
  return total;
}

Value default_filter(Budget&, const Value& value, Arguments&& arguments) {
  const Bound bound("default", std::move(arguments), {"default_value", "boolean"});
  const bool replaced = value.is_undefined() || (bound.truth_or(1, false) && !is_true(value));
  if (!replaced) return value;
  if (bound.has(0)) return bound[0];
  return std::make_shared<const String>();
}

Value length_filter(Budget& budget, const Value& value, Arguments&& arguments) {
  Bound("length", std::move(arguments), {});
  return static_cast<int64_t>(length(budget, value));
}

Value list(Budget& budget, const Value& value, Arguments&& arguments) {
  Bound("list", std::move(arguments), {});
  return make_list(budget, items_of(budget, value));
}

Value items(Budget& budget, const Value& value, Arguments&& arguments) {
  Bound("items", std::move(arguments), {});
  if (value.is_undefined()) return make_iterator(budget, {});
  if (!value.dict()) throw_error("'items' of a {}, not of a mapping", type_name(value));
  return make_iterator(budget, items_of(budget, call_method(budget, value, "items", {})));
}

Value first(Budget& budget, const Value& value, Arguments&& arguments) {
  Bound("first", std::move(arguments), {});
  if (value.is_string() && !value.text().empty()) return get_item(budget, value, int64_t{0});
  const Sequence* sequence = value.sequence();
  if (sequence && sequence->kind == Sequence::Kind::kIterator && !sequence->running &&
      sequence->taken < sequence->items.size()) {
    return sequence->items[sequence->taken++];
  }
  const Items all = iterate(budget, value);
  if (all.empty()) return Value::undefined("No first item, sequence was empty.");
  return all.front();
}

// Python's reversed() knows these.
bool is_reversible(const Value& value) {
  const Sequence* sequence = value.sequence();
  return value.is_undefined() || value.is_string() || value.dict() ||
         (sequence && sequence->kind != Sequence::Kind::kIterator);
}

Value last(Budget& budget, const Value& value, Arguments&& arguments) {
  Bound("last", std::move(arguments), {});
  if (!is_reversible(value)) {
    throw_error("'last' of a {}; make it a list first", type_name(value));
  }
  if (value.is_string() && !value.text().empty()) return get_item(budget, value, int64_t{-1});
  const Items all = iterate(budget, value);
  if (all.empty()) return Value::undefined("No last item, sequence was empty.");
  return all.back();
}

Value reverse(Budget& budget, const Value& value, Arguments&& arguments) {
  Bound("reverse", std::move(arguments), {});
  if (value.is_string()) return get_slice(budget, value, None{}, None{}, int64_t{-1});
  std::vector<Value> all = items_of(budget, value);
  std::ranges::reverse(all);
  return is_reversible(value) ? make_iterator(budget, std::move(all))
                              : make_list(budget, std::move(all));
}

Value join(Budget& budget, const Value& value, Arguments&& arguments) {
  const Bound bound("join", std::move(arguments), {"d", "attribute"});
  const std::string separator = bound.has(0) ? to_text(budget, bound[0]) : "";
  const AttributePath path(budget, bound.get_or(1, None{}));
  std::string out;
  for (bool is_first = true; const Value& item : iterate(budget, value)) {
    const std::string text = to_text(budget, path.of(budget, item));
    budget.bytes(text.size() + separator.size());
    if (!is_first) out += separator;
    is_first = false;
    out += text;
  }
  return make_string(budget, std::move(out));
}

Value attr(Budget& budget, const Value& value, Arguments&& arguments) {
  const Bound bound("attr", std::move(arguments), {"name"}, 1);
  if (value.dict() && attribute_kind(value, bound.text(0)) == AttributeKind::kAbsent) {
    return Value::undefined(fmt::format("'dict object' has no attribute '{}'", bound.text(0)));
  }
  return get_attribute(budget, value, bound.text(0));
}

Value map(Budget& budget, const Value& value, Arguments&& arguments) {
  std::vector<Value> out;
  if (!is_true(value)) return make_iterator(budget, {});
  const Items all = iterate(budget, value);
  if (arguments.positional.empty()) {
    const Bound bound("map", std::move(arguments), {"attribute", "default"}, 1);
    const AttributePath path(budget, bound[0]);
    for (const Value& item : all) out.push_back(path.of(budget, item, bound.get_or(1, None{})));
    return make_iterator(budget, std::move(out));
  }
  const Value name = arguments.positional.front();
  arguments.positional.erase(arguments.positional.begin());
  if (!name.is_string()) throw_error("'map' asks for the name of a filter");
  for (const Value& item : all) {
    budget.step(1 + arguments.positional.size());
    const Budget::Nested nested(budget);  // 'map' may name itself
    out.push_back(apply_filter(budget, name.text(), item, arguments));
  }
  return make_iterator(budget, std::move(out));
}

// select and its relatives: the items for which a test says `wanted`.
template <bool wanted, bool by_attribute>
Value select(Budget& budget, const Value& value, Arguments&& arguments) {
  if (!is_true(value)) return make_iterator(budget, {});
  const Items all = iterate(budget, value);
  std::vector<Value>& given = arguments.positional;
  const auto take = [&](const char* what) {
    if (given.empty()) throw_error("'select' and its kin need {}", what);
    Value front = std::move(given.front());
    given.erase(given.begin());
    return front;
  };
  const AttributePath path(budget, by_attribute ? take("the name of an attribute") : None{});
  std::optional<Value> test;
  if (!given.empty()) test = take("a test");
  if (test && !test->is_string()) throw_error("'select' and its kin ask for the name of a test");
  std::vector<Value> out;
  for (const Value& item : all) {
    budget.step(1 + given.size());
    const Value tested = path.of(budget, item);
    const bool holds = test ? apply_test(budget, test->text(), tested, arguments) : is_true(tested);
    if (holds == wanted) out.push_back(item);
  }
  return make_iterator(budget, std::move(out));
}

Value batch(Budget& budget, const Value& value, Arguments&& arguments) {
  const Bound bound("batch", std::move(arguments), {"linecount", "fill_with"}, 1);
  const Items all = iterate(budget, value);
  const int64_t size = bound.integer(0);
  if (size < 1) throw_error("'batch' of {} items", size);
  std::vector<Value> out, line;
  for (size_t i = 0; i < all.size(); ++i) {
    line.push_back(all[i]);
    const bool is_last = i + 1 == all.size();
    if (static_cast<int64_t>(line.size()) < size && !is_last) continue;
    while (is_last && bound.has_value(1) && static_cast<int64_t>(line.size()) < size) {
      budget.step();
      line.push_back(bound[1]);
    }
    out.push_back(make_list(budget, std::move(line)));
    line.clear();
  }
  return make_iterator(budget, std::move(out));
}

Value slice(Budget& budget, const Value& value, Arguments&& arguments) {
  const Bound bound("slice", std::move(arguments), {"slices", "fill_with"}, 1);
  const std::vector<Value> all = items_of(budget, value);
  const int64_t slices = bound.integer(0);
  if (slices < 1) throw_error("'slice' into {} parts", slices);
  budget.step(slices);
  const auto size = static_cast<int64_t>(all.size());
  const int64_t each = size / slices, longer = size % slices;
  std::vector<Value> out;
  for (int64_t i = 0, begin = 0; i < slices; ++i) {
    const int64_t end = begin + each + (i < longer);
    std::vector<Value> part(all.begin() + begin, all.begin() + end);
    if (bound.has_value(1) && i >= longer) part.push_back(bound[1]);
    out.push_back(make_list(budget, std::move(part)));
    begin = end;
  }
  return make_iterator(budget, std::move(out));
}

}  // namespace

const FilterTable& sequence_filters() {
  static const FilterTable table = {
      {"attr", attr},
      {"batch", batch},
      {"count", length_filter},
      {"d", default_filter},
      {"default", default_filter},
      {"dictsort", dictsort},
      {"first", first},
      {"items", items},
      {"join", join},
      {"last", last},
      {"length", length_filter},
      {"list", list},
      {"map", map},
      {"max", extreme<true>},
      {"min", extreme<false>},
      {"reject", select<false, false>},
      {"rejectattr", select<false, true>},
      {"reverse", reverse},
      {"select", select<true, false>},
      {"selectattr", select<true, true>},
      {"slice", slice},
      {"sort", sort},
      {"sum", sum},
      {"unique", unique},
  };
  return table;
}

}  // namespace halo::jinja
