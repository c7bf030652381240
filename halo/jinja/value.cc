#include "halo/jinja/value.h"

#include <algorithm>
#include <optional>

#include "halo/jinja/operators.h"

namespace halo::jinja {
namespace {

int depth_of(const Value& value) {
  if (const Sequence* sequence = value.sequence()) return sequence->depth;
  if (const Dict* dict = value.dict()) return dict->depth;
  return 0;
}

int checked_depth(int deepest) {
  if (deepest >= kMaxValueDepth) {
    throw_error("lists and mappings inside each other more than {} deep", kMaxValueDepth);
  }
  return deepest + 1;
}

}  // namespace

const std::string& Value::text() const {
  return std::get<StringRef>(data_)->text;
}

const std::string& Value::undefined_why() const {
  static const std::string unknown = "the value is undefined";
  const auto& why = std::get<Undefined>(data_).why;
  return why ? *why : unknown;
}

const void* Value::address() const {
  return std::visit(
      [](const auto& held) -> const void* {
        if constexpr (requires { held.use_count(); }) return held.get();
        return nullptr;
      },
      data_);
}

const Value* Dict::find(std::string_view key) const {
  const auto found = strings.find(key);
  return found == strings.end() ? nullptr : &entries[found->second].second;
}

Value make_string(Budget& budget, std::string text, bool safe) {
  budget.bytes(sizeof(String) + text.size());
  return std::make_shared<const String>(String{std::move(text), safe});
}

Value make_sequence(Budget& budget, Sequence::Kind kind, std::vector<Value> items) {
  budget.bytes(sizeof(Sequence) + items.size() * sizeof(Value));
  budget.step(items.size());
  int deepest = 0;
  bool state = false;
  for (const Value& item : items) {
    deepest = std::max(deepest, depth_of(item));
    state = state || holds_state(item);
  }
  return std::make_shared<const Sequence>(
      Sequence{kind, std::move(items), checked_depth(deepest), state});
}

Value make_dict(Budget& budget, std::vector<std::pair<Value, Value>> entries) {
  budget.bytes(sizeof(Dict) + entries.size() * (2 * sizeof(Value) + 48));
  auto dict = std::make_shared<Dict>();
  int deepest = 0;
  for (auto& [key, value] : entries) {
    require_hashable(key);
    budget.step();
    deepest = std::max({deepest, depth_of(key), depth_of(value)});
    dict->holds_state = dict->holds_state || holds_state(key) || holds_state(value);
    if (const std::optional<size_t> known = find_entry(budget, *dict, key)) {
      dict->entries[*known].second = std::move(value);
      continue;
    }
    dict->entries.emplace_back(std::move(key), std::move(value));
    const Value& stored = dict->entries.back().first;
    if (stored.is_string()) dict->strings.emplace(stored.text(), dict->entries.size() - 1);
  }
  dict->depth = checked_depth(deepest);
  return DictRef(std::move(dict));
}

Value make_method(const Value& self, std::string_view name) {
  return std::make_shared<const Callable>(
      Callable{Callable::Kind::kMethod, std::string(name), self});
}

Value from_json(Budget& budget, const boost::json::value& json) {
  namespace bj = boost::json;
  switch (json.kind()) {
    case bj::kind::null:
      return None{};
    case bj::kind::bool_:
      return json.get_bool();
    case bj::kind::int64:
      return json.get_int64();
    case bj::kind::uint64:
      throw_error("the integer {} has more than 64 bits", json.get_uint64());
    case bj::kind::double_:
      return json.get_double();
    case bj::kind::string:
      return make_string(budget, std::string(json.get_string()));
    case bj::kind::array: {
      std::vector<Value> items;
      for (const bj::value& item : json.get_array()) items.push_back(from_json(budget, item));
      return make_list(budget, std::move(items));
    }
    case bj::kind::object:
      break;
  }
  std::vector<std::pair<Value, Value>> entries;
  for (const auto& member : json.get_object()) {
    entries.emplace_back(make_string(budget, std::string(member.key())),
                         from_json(budget, member.value()));
  }
  return make_dict(budget, std::move(entries));
}

bool is_true(const Value& value) {
  if (value.is_undefined() || value.is_none()) return false;
  if (value.is_integral()) return value.integer() != 0;
  if (value.is_float()) return value.number() != 0;
  if (value.is_string()) return !value.text().empty();
  if (const Dict* dict = value.dict()) return !dict->entries.empty();
  if (const Sequence* sequence = value.sequence()) {
    return sequence->kind == Sequence::Kind::kIterator || !sequence->items.empty();
  }
  if (Loop* loop = value.loop()) return loop->length() > 0;
  return true;
}

bool holds_state(const Value& value) {
  if (const Sequence* sequence = value.sequence()) return sequence->holds_state;
  if (const Dict* dict = value.dict()) return dict->holds_state;
  if (const Callable* callable = value.callable()) {
    return callable->kind == Callable::Kind::kMethod && holds_state(callable->self);
  }
  return value.name_space() || value.loop();
}

std::string_view type_name(const Value& value) {
  if (value.is_undefined()) return "undefined";
  if (value.is_none()) return "NoneType";
  if (value.is_bool()) return "bool";
  if (value.is_integer()) return "int";
  if (value.is_float()) return "float";
  if (value.is_string()) return "str";
  if (value.dict()) return "dict";
  if (value.name_space()) return "namespace";
  if (value.loop()) return "loop";
  if (value.callable()) return "function";
  static constexpr std::string_view kNames[] = {"list",        "tuple",      "range",   "dict_keys",
                                                "dict_values", "dict_items", "iterator"};
  return kNames[static_cast<int>(value.sequence()->kind)];
}

void require_hashable(const Value& key) {
  const Sequence* sequence = key.sequence();
  const bool is_tuple = sequence && sequence->kind == Sequence::Kind::kTuple;
  if (key.dict() || (sequence && !is_tuple)) {
    throw_error("a {} cannot be a key of a mapping", type_name(key));
  }
  if (is_tuple) {
    for (const Value& item : sequence->items) require_hashable(item);
  }
}

void require_defined(const Value& value) {
  if (value.is_undefined()) throw Error(value.undefined_why());
}

}  // namespace halo::jinja
