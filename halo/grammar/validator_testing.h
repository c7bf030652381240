// Random schemas, and a plain validator of JSON values, for tests. It knows the keywords that
// random_schema() uses and no others.
#pragma once

#include <cmath>
#include <string>

#include "halo/base/check.h"
#include "halo/base/json.h"
#include "halo/base/random.h"
#include "halo/base/utf8.h"

namespace halo::test {

inline bool equal_values(const json::value& a, const json::value& b) {
  if (a.is_number() && b.is_number()) return a.to_number<double>() == b.to_number<double>();
  return a == b;
}

inline std::string type_name(const json::value& value) {
  if (value.is_double())
    return value.get_double() == std::floor(value.get_double()) ? "integer" : "number";
  return value.is_number()   ? "integer"
         : value.is_string() ? "string"
         : value.is_bool()   ? "boolean"
         : value.is_array()  ? "array"
         : value.is_object() ? "object"
                             : "null";
}

inline int64_t count_letters(std::string_view text) {
  int64_t count = 0;
  for (size_t at = 0; at < text.size(); at += decode_utf8(text, at).size) ++count;
  return count;
}

// Empty: it is valid.
inline std::string why_invalid(const json::value& schema, const json::value& value) {
  if (schema.is_bool()) return schema.get_bool() ? "" : "false";
  const json::object& s = schema.as_object();
  const auto find = [&](const char* key) { return s.if_contains(key); };
  const auto number = [](const json::value* v) { return v->to_number<double>(); };
  if (const auto* choices = find("anyOf")) {
    for (const json::value& one : choices->as_array()) {
      if (why_invalid(one, value).empty()) return "";
    }
    return "anyOf";
  }
  if (const auto* only = find("const")) return equal_values(*only, value) ? "" : "const";
  if (const auto* list = find("enum")) {
    for (const json::value& one : list->as_array()) {
      if (equal_values(one, value)) return "";
    }
    return "enum";
  }
  if (const auto* type = find("type")) {
    const std::string got = type_name(value);
    bool good = false;
    const auto is = [&](const json::value& word) {
      good |= word == json::value(got) || (word == "number" && got == "integer");
    };
    if (const auto* list = type->if_array()) {
      for (const json::value& word : *list) is(word);
    } else {
      is(*type);
    }
    if (!good) return "type";
  }
  if (value.is_number()) {
    const auto v = value.to_number<double>();
    if (find("minimum") && v < number(find("minimum"))) return "minimum";
    if (find("maximum") && v > number(find("maximum"))) return "maximum";
    if (find("exclusiveMinimum") && v <= number(find("exclusiveMinimum")))
      return "exclusiveMinimum";
    if (find("exclusiveMaximum") && v >= number(find("exclusiveMaximum")))
      return "exclusiveMaximum";
    constexpr double kExact = 0x1p53;  // beyond, digits were lost
    if (find("multipleOf") && std::abs(v) < kExact && std::fmod(v, number(find("multipleOf"))) != 0)
      return "multipleOf";
  }
  if (const auto* text = value.if_string()) {
    const auto size = static_cast<double>(count_letters(*text));
    if (find("minLength") && size < number(find("minLength"))) return "minLength";
    if (find("maxLength") && size > number(find("maxLength"))) return "maxLength";
    // The one pattern that there is.
    if (find("pattern") && (size != 3 || (text->front() >= 'a' && text->front() <= 'y')))
      return "pattern";
  }
  if (const auto* list = value.if_array()) {
    const auto size = static_cast<double>(list->size());
    if (find("minItems") && size < number(find("minItems"))) return "minItems";
    if (find("maxItems") && size > number(find("maxItems"))) return "maxItems";
    if (const auto* items = find("items")) {
      for (const json::value& one : *list) {
        if (const std::string why = why_invalid(*items, one); !why.empty()) return "items." + why;
      }
    }
  }
  if (const auto* object = value.if_object()) {
    const auto* properties = find("properties");
    if (const auto* required = find("required")) {
      for (const json::value& name : required->as_array()) {
        if (!object->contains(name.as_string())) return "required";
      }
    }
    for (const auto& [name, member] : *object) {
      const json::value* own =
          properties == nullptr ? nullptr : properties->as_object().if_contains(name);
      const json::value* other = own == nullptr ? find("additionalProperties") : own;
      if (other == nullptr) continue;
      if (const std::string why = why_invalid(*other, member); !why.empty())
        return std::string(name) + "." + why;
    }
  }
  return "";
}

// Draws below the first ones of `random`, one after the other.
class Draws {
 public:
  explicit Draws(const Random& random) : random_(random) {}
  int64_t below(int64_t n) { return random_.below(next_++, n); }
  bool chance(int64_t percent) { return below(100) < percent; }

 private:
  const Random random_;
  uint64_t next_ = 0;
};

inline json::value random_schema(Draws& draws, int depth) {
  const auto integer = [&](json::object s) {
    const int64_t low = draws.below(400) - 200;
    if (draws.chance(40)) s["minimum"] = low;
    if (draws.chance(20)) s["exclusiveMinimum"] = low - draws.below(3);
    if (draws.chance(40)) s["maximum"] = low + 3 + draws.below(1000);
    if (draws.chance(20)) s["exclusiveMaximum"] = low + 4 + draws.below(5000);
    return s;
  };
  switch (draws.below(depth > 0 ? 11 : 7)) {
    case 0:
      if (draws.chance(30)) return {{"type", "integer"}, {"multipleOf", 1 + draws.below(20)}};
      return integer({{"type", "integer"}});
    case 1: {
      json::object s{{"type", "number"}};
      const double low = static_cast<double>(draws.below(100'000) - 50'000) / 1000;
      if (draws.chance(40)) s["minimum"] = low;
      if (draws.chance(20)) s["exclusiveMinimum"] = low;
      if (draws.chance(40)) s["maximum"] = low + 1 + static_cast<double>(draws.below(1000)) / 8;
      if (draws.chance(20)) s["exclusiveMaximum"] = low + 2;
      return s;
    }
    case 2: {
      json::object s{{"type", "string"}};
      const int64_t least = draws.below(4);
      if (draws.chance(20)) return {{"type", "string"}, {"pattern", "^[^a-y]\\S.$"}};
      if (draws.chance(40)) s["minLength"] = least;
      if (draws.chance(40)) s["maxLength"] = least + draws.below(6);
      return s;
    }
    case 3:
      return {{"enum", json::array{"a/b", draws.below(9), nullptr, 0.25, "\"q\\\n"}}};
    case 4:
      return {{"const", json::array{json::object{{"k", draws.below(9)}}, true}}};
    case 5:
      return integer({{"type", json::array{"integer", "null", "boolean"}}});
    case 6:
      if (draws.chance(50)) return {{"type", "boolean"}};
      return json::object();
    case 7:
    case 8: {
      json::object properties;
      json::array required;
      const int64_t count = 1 + draws.below(4);
      for (int64_t i = 0; i < count; ++i) {
        const std::string name =
            draws.chance(20) ? fmt::format("\xc3\xa9 {}\"", i) : fmt::format("p{}", i);
        properties[name] = random_schema(draws, depth - 1);
        if (draws.chance(60)) required.emplace_back(name);
      }
      json::object s{{"type", "object"}, {"properties", std::move(properties)}};
      if (draws.chance(50)) s["additionalProperties"] = false;
      s["required"] = std::move(required);
      return s;
    }
    case 9: {
      json::object s{{"type", "array"}, {"items", random_schema(draws, depth - 1)}};
      const int64_t least = draws.below(3);
      if (draws.chance(50)) s["minItems"] = least;
      if (draws.chance(50)) s["maxItems"] = least + draws.below(3);
      return s;
    }
    default: {
      if (draws.chance(30))
        return {{"type", "object"}, {"additionalProperties", random_schema(draws, depth - 1)}};
      json::array choices;
      for (int64_t i = 0; i < 2 + draws.below(2); ++i)
        choices.push_back(random_schema(draws, depth - 1));
      return {{"anyOf", std::move(choices)}};
    }
  }
}

inline json::value random_schema(const Random& random) {
  Draws draws(random);
  return random_schema(draws, 3);
}

}  // namespace halo::test
