#include "halo/grammar/oneof.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <optional>
#include <string>
#include <vector>

namespace halo {
namespace {

constexpr int kMostRefs = 16;

// Behind references; null where it is no object.
const json::object* object_of(const json::value& root, const json::value* schema) {
  for (int i = 0; i < kMostRefs && schema != nullptr; ++i) {
    const auto* object = schema->if_object();
    const json::value* ref = object == nullptr ? nullptr : object->if_contains("$ref");
    if (ref == nullptr) return object;
    if (!ref->is_string()) return nullptr;
    schema = resolve_ref(root, ref->get_string());
  }
  return nullptr;
}

std::optional<std::vector<json::value>> constants(const json::object& schema) {
  if (const json::value* one = schema.if_contains("const")) return {{*one}};
  const json::value* list = schema.if_contains("enum");
  if (list == nullptr || !list->is_array()) return std::nullopt;
  return std::vector<json::value>(list->get_array().begin(), list->get_array().end());
}

std::vector<std::string_view> types(const json::object& schema) {
  std::vector<std::string_view> out;
  const json::value* type = schema.if_contains("type");
  if (type == nullptr) return out;
  if (type->is_string()) return {type->get_string()};
  if (const auto* list = type->if_array()) {
    for (const json::value& word : *list) {
      if (word.is_string()) out.push_back(word.get_string());
    }
  }
  return out;
}

bool overlap(std::string_view a, std::string_view b) {
  return a == b || (a == "integer" && b == "number") || (a == "number" && b == "integer");
}

// 1 and 1.0 are one value.
bool is_same(const json::value& a, const json::value& b) {
  if (a.is_number() && b.is_number()) return a.to_number<double>() == b.to_number<double>();
  return a == b;
}

bool requires_property(const json::object& schema, std::string_view name) {
  const json::value* required = schema.if_contains("required");
  return required != nullptr && required->is_array() &&
         std::ranges::count(required->get_array(), json::value(name)) > 0;
}

bool are_exclusive(const json::value& root, const json::value& first, const json::value& second) {
  const json::object *a = object_of(root, &first), *b = object_of(root, &second);
  if (a == nullptr || b == nullptr) return false;
  const auto a_values = constants(*a), b_values = constants(*b);
  const auto a_types = types(*a), b_types = types(*b);
  if (a_values && b_values) {
    return std::ranges::none_of(*a_values, [&](const json::value& v) {
      return std::ranges::any_of(*b_values, [&](const json::value& w) { return is_same(v, w); });
    });
  }
  const auto none_of = [](const auto& values, const auto& types) {
    return !types.empty() && std::ranges::none_of(values, [&](const json::value& v) {
      return std::ranges::any_of(types, [&](auto type) { return is_of(v, type); });
    });
  };
  if (a_values) return none_of(*a_values, b_types);
  if (b_values) return none_of(*b_values, a_types);
  if (a_types.empty() || b_types.empty()) return false;
  const bool share = std::ranges::any_of(a_types, [&](auto x) {
    return std::ranges::any_of(b_types, [&](auto y) { return overlap(x, y); });
  });
  if (!share) return true;
  const bool objects = a_types.size() == 1 && b_types.size() == 1 && a_types[0] == "object";
  const json::value *mine = a->if_contains("properties"), *other = b->if_contains("properties");
  if (!objects || mine == nullptr || other == nullptr || !mine->is_object() || !other->is_object())
    return false;
  for (const auto& [name, schema] : mine->get_object()) {
    const json::value* same = other->get_object().if_contains(name);
    if (same == nullptr || !requires_property(*a, name) || !requires_property(*b, name)) continue;
    const json::object *x = object_of(root, &schema), *y = object_of(root, same);
    if (x == nullptr || y == nullptr || !constants(*x) || !constants(*y)) continue;
    if (are_exclusive(root, schema, *same)) return true;
  }
  return false;
}

}  // namespace

bool is_type(std::string_view word) {
  constexpr std::string_view kTypes[] = {"object",  "array",   "string", "number",
                                         "integer", "boolean", "null"};
  return std::ranges::count(kTypes, word) > 0;
}

bool is_of(const json::value& value, std::string_view type) {
  switch (value.kind()) {
    case json::kind::null:
      return type == "null";
    case json::kind::bool_:
      return type == "boolean";
    case json::kind::int64:
    case json::kind::uint64:
      return type == "integer" || type == "number";
    case json::kind::double_:
      return type == "number" ||
             (type == "integer" && value.get_double() == std::floor(value.get_double()));
    case json::kind::string:
      return type == "string";
    case json::kind::array:
      return type == "array";
    case json::kind::object:
      return type == "object";
  }
  return false;
}

const json::value* resolve_ref(const json::value& root, std::string_view uri) {
  if (uri == "#") return &root;
  if (!uri.starts_with("#/") || uri.find('%') != std::string_view::npos) return nullptr;
  const json::value* at = &root;
  for (uri.remove_prefix(1); !uri.empty();) {
    uri.remove_prefix(1);
    std::string name(uri.substr(0, uri.find('/')));
    uri.remove_prefix(name.size());
    for (const auto& [escape, letter] : {std::pair{"~1", "/"}, std::pair{"~0", "~"}}) {
      for (size_t i = 0; (i = name.find(escape, i)) != std::string::npos; ++i)
        name.replace(i, 2, letter);
    }
    if (const auto* object = at->if_object()) {
      at = object->if_contains(name);
    } else if (const auto* list = at->if_array()) {
      size_t index = 0;
      const auto read = std::from_chars(name.data(), name.data() + name.size(), index);
      const bool good = read.ec == std::errc() && read.ptr == name.data() + name.size();
      at = good ? list->if_contains(index) : nullptr;
    } else {
      at = nullptr;
    }
    if (at == nullptr) return nullptr;
  }
  return at;
}

bool are_exclusive(const json::value& root, const json::array& schemas) {
  for (size_t i = 0; i < schemas.size(); ++i) {
    for (size_t j = 0; j < i; ++j) {
      if (!are_exclusive(root, schemas[i], schemas[j])) return false;
    }
  }
  return true;
}

}  // namespace halo
