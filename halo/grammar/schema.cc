#include "halo/grammar/schema.h"

#include <algorithm>
#include <cmath>
#include <optional>
#include <set>
#include <string_view>
#include <vector>

#include "halo/grammar/oneof.h"
#include "halo/grammar/pattern.h"

namespace halo {
namespace {

constexpr int64_t kMostSchemas = 2000, kMostValues = 1000, kMostItems = 10'000,
                  kMostLetters = 10'000;
constexpr int64_t kMostMultiple = 1024;  // XGrammar's

enum Kind { kNone, kString, kNumber, kArray, kObject };

struct Keyword {
  std::string_view name;
  Kind kind;  // of the values that it says something of
};
constexpr Keyword kKeywords[] = {{"minLength", kString},        {"maxLength", kString},
                                 {"pattern", kString},          {"format", kString},
                                 {"minimum", kNumber},          {"maximum", kNumber},
                                 {"exclusiveMinimum", kNumber}, {"exclusiveMaximum", kNumber},
                                 {"multipleOf", kNumber},       {"items", kArray},
                                 {"prefixItems", kArray},       {"minItems", kArray},
                                 {"maxItems", kArray},          {"uniqueItems", kArray},
                                 {"properties", kObject},       {"additionalProperties", kObject},
                                 {"required", kObject}};
constexpr std::string_view kAnnotations[] = {"title",      "description", "default",   "examples",
                                             "deprecated", "readOnly",    "writeOnly", "$comment",
                                             "$schema",    "$id"};
constexpr std::string_view kDefinitions[] = {"$defs", "definitions"};
// Each says alone what a value may be.
constexpr std::string_view kForms[] = {"$ref", "const", "enum", "anyOf", "oneOf", "allOf"};
constexpr std::string_view kFormats[] = {"date",     "time", "date-time", "duration", "email",
                                         "hostname", "ipv4", "ipv6",      "uuid",     "uri"};

bool contains(const auto& list, std::string_view name) {
  return std::ranges::find(list, name) != std::end(list);
}

const Keyword* find_keyword(std::string_view name) {
  const auto at = std::ranges::find(kKeywords, name, &Keyword::name);
  return at == std::end(kKeywords) ? nullptr : at;
}

Kind kind_of_type(std::string_view type) {
  if (type == "string") return kString;
  if (type == "number" || type == "integer") return kNumber;
  if (type == "array") return kArray;
  return type == "object" ? kObject : kNone;
}

class Checker {
 public:
  explicit Checker(const json::value& root) : root_(root) {}

  json::value check(const json::value& schema, const std::string& path) {
    if (++count_ > kMostSchemas)
      throw SchemaError(path, fmt::format("more than {} schemas in one", kMostSchemas));
    if (schema.is_bool() && schema.get_bool()) return json::object();
    if (!schema.is_object()) {
      throw SchemaError(path, schema.is_bool() ? "false allows nothing" : "expected a schema");
    }
    const json::object& in = schema.get_object();
    const std::string_view form = form_of(in, path);
    json::object out;
    if (!form.empty()) {
      out = check_form(in, form, path);
    } else {
      out = check_types(in, path);
    }
    for (const std::string_view key : kDefinitions) {
      if (in.contains(key)) out[key] = check_map(in.at(key), path + "." + std::string(key));
    }
    return out;
  }

 private:
  [[noreturn]] static void refuse(const std::string& path, std::string_view key,
                                  const std::string& what) {
    throw SchemaError(fmt::format("{}.{}", path, key), what);
  }

  // The one of kForms that is there; refuses what stands beside it, and what is no keyword.
  static std::string_view form_of(const json::object& in, const std::string& path) {
    std::string_view form;
    for (const auto& [key, value] : in) {
      if (!contains(kForms, key)) continue;
      if (!form.empty()) refuse(path, key, fmt::format("is not supported beside '{}'", form));
      form = key;
    }
    const bool is_value = form == "const" || form == "enum";
    for (const auto& [key, value] : in) {
      if (key == form || contains(kAnnotations, key) || contains(kDefinitions, key)) continue;
      if (key != "type" && find_keyword(key) == nullptr) refuse(path, key, "is not supported");
      if (!form.empty() && !(is_value && key == "type"))
        refuse(path, key, fmt::format("is not supported beside '{}'", form));
    }
    return form;
  }

  json::object check_form(const json::object& in, std::string_view form, const std::string& path) {
    const json::value& value = in.at(form);
    const std::string at = fmt::format("{}.{}", path, form);
    if (form == "$ref") {
      if (!value.is_string()) throw SchemaError(at, "expected text");
      const std::string_view uri = value.get_string();
      if (resolve_ref(root_, uri) == nullptr)
        throw SchemaError(at, fmt::format("'{}' is not found; expected '#' or '#/...'", uri));
      return {{"$ref", value}};
    }
    if (form == "const") {
      check_value(in, value, path, at);
      return {{"const", value}};
    }
    if (!value.is_array() || value.get_array().empty())
      throw SchemaError(at, "expected a list that is not empty");
    const json::array& list = value.get_array();
    if (form == "enum") {
      if (std::ssize(list) > kMostValues)
        throw SchemaError(at, fmt::format("more than {} values", kMostValues));
      for (size_t i = 0; i < list.size(); ++i)
        check_value(in, list[i], path, fmt::format("{}.{}", at, i));
      return {{"enum", value}};
    }
    if (form == "allOf" && list.size() > 1)
      throw SchemaError(at, "is supported with one schema alone");
    json::array options;
    for (size_t i = 0; i < list.size(); ++i)
      options.push_back(check(list[i], fmt::format("{}.{}", at, i)));
    if (form == "oneOf" && !are_exclusive(root_, list)) {
      throw SchemaError(at,
                        "is supported where types, constants or a required property's constants "
                        "tell the schemas apart; 'anyOf' needs no such thing");
    }
    return {{form == "allOf" ? "allOf" : "anyOf", std::move(options)}};
  }

  // A constant, which must be of the type beside it.
  static void check_value(const json::object& in, const json::value& value, const std::string& path,
                          const std::string& at) {
    const std::vector<std::string_view> types = types_of(in, path);
    if (!types.empty() && std::ranges::none_of(types, [&](auto t) { return is_of(value, t); }))
      throw SchemaError(at, "is not of the 'type' beside it");
  }

  static std::vector<std::string_view> types_of(const json::object& in, const std::string& path) {
    const json::value* type = in.if_contains("type");
    std::vector<std::string_view> out;
    if (type == nullptr) return out;
    const auto add = [&](const json::value& word, const std::string& at) {
      if (!word.is_string() || !is_type(word.get_string())) {
        throw SchemaError(at,
                          "expected 'object', 'array', 'string', 'number', 'integer', 'boolean' or "
                          "'null'");
      }
      out.push_back(word.get_string());
    };
    if (const auto* list = type->if_array()) {
      if (list->empty()) refuse(path, "type", "is an empty list");
      for (size_t i = 0; i < list->size(); ++i) add((*list)[i], fmt::format("{}.type.{}", path, i));
    } else {
      add(*type, path + ".type");
    }
    return out;
  }

  json::object check_types(const json::object& in, const std::string& path) {
    std::vector<std::string_view> types = types_of(in, path);
    if (types.empty()) {
      for (const auto& [key, value] : in) {
        const Keyword* keyword = find_keyword(key);
        if (keyword == nullptr) continue;
        const std::string_view type = keyword->kind == kObject  ? "object"
                                      : keyword->kind == kArray ? "array"
                                                                : "";
        if (type.empty() || (!types.empty() && types.front() != type))
          refuse(path, key, "needs a 'type' beside it");
        types = {type};
      }
      if (types.empty()) return {};
    }
    json::object out;
    for (const std::string_view type : types) {
      switch (kind_of_type(type)) {
        case kString:
          check_string(in, out, path);
          break;
        case kNumber:
          check_number(in, out, type == "integer", path);
          break;
        case kArray:
          check_array(in, out, path);
          break;
        case kObject:
          check_object(in, out, path);
          break;
        case kNone:
          break;
      }
    }
    if (types.size() == 1) {
      out["type"] = types.front();
    } else {
      json::array list;
      for (const std::string_view type : types) list.emplace_back(type);
      out["type"] = std::move(list);
    }
    return out;
  }

  static std::optional<int64_t> count_of(const json::object& in, std::string_view key, int64_t most,
                                         const std::string& path) {
    const json::value* value = in.if_contains(key);
    if (value == nullptr) return std::nullopt;
    const double number = value->is_number() ? value->to_number<double>() : -1;
    if (number < 0 || number != std::floor(number) || number > static_cast<double>(most))
      refuse(path, key, fmt::format("expected an integer from 0 to {}", most));
    return static_cast<int64_t>(number);
  }

  static void check_string(const json::object& in, json::object& out, const std::string& path) {
    const auto least = count_of(in, "minLength", kMostLetters, path);
    const auto most = count_of(in, "maxLength", kMostLetters, path);
    const json::value *pattern = in.if_contains("pattern"), *format = in.if_contains("format");
    const char* length = most ? "maxLength" : "minLength";
    if (pattern != nullptr && format != nullptr)
      refuse(path, "pattern", "is not supported beside 'format'");
    if ((least || most) && (pattern != nullptr || format != nullptr))
      refuse(path, length, "is not supported beside 'pattern' or 'format'");
    if (pattern != nullptr) {
      if (!pattern->is_string()) refuse(path, "pattern", "expected text");
      try {
        out["pattern"] = exact_pattern(pattern->get_string());
      } catch (const Error& error) {
        refuse(path, "pattern", error.what());
      }
    } else if (format != nullptr) {
      if (!format->is_string() || !contains(kFormats, format->get_string()))
        refuse(path, "format", fmt::format("expected one of {}", fmt::join(kFormats, ", ")));
      out["format"] = *format;
      return;
    }
    if (least && most && *least > *most) refuse(path, "minLength", "is above 'maxLength'");
    if (least) out["minLength"] = *least;
    if (most) out["maxLength"] = *most;
  }

  static void check_number(const json::object& in, json::object& out, bool is_integer,
                           const std::string& path) {
    bool has_bound = false;
    for (const char* key : {"minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"}) {
      const json::value* value = in.if_contains(key);
      if (value == nullptr) continue;
      has_bound = true;
      if (!value->is_number()) refuse(path, key, "expected a number");
      const auto number = value->to_number<double>();
      // As many digits as XGrammar compares.
      const double scaled = number * (is_integer ? 1 : 1e6);
      if (std::abs(number) > 1e15 ||
          std::abs(scaled - std::round(scaled)) > (is_integer ? 0 : std::abs(scaled) * 1e-15)) {
        refuse(path, key,
               is_integer ? "expected a whole number up to 1e15"
                          : "expected a number up to 1e15 with 6 digits behind the point at most");
      }
      out[key] = *value;
      if (is_integer) out[key] = static_cast<int64_t>(number);
    }
    const auto multiple = count_of(in, "multipleOf", kMostMultiple, path);
    if (!multiple) return;
    if (!is_integer || has_bound || *multiple == 0) {
      refuse(path, "multipleOf",
             fmt::format("is supported for integers without bounds, from 1 to {}", kMostMultiple));
    }
    out["multipleOf"] = *multiple;
  }

  void check_array(const json::object& in, json::object& out, const std::string& path) {
    const auto least = count_of(in, "minItems", kMostItems, path);
    const auto most = count_of(in, "maxItems", kMostItems, path);
    if (least && most && *least > *most) refuse(path, "minItems", "is above 'maxItems'");
    if (least) out["minItems"] = *least;
    if (most) out["maxItems"] = *most;
    const json::value *unique = in.if_contains("uniqueItems"), *items = in.if_contains("items"),
                      *first = in.if_contains("prefixItems");
    if (unique != nullptr && *unique != false) refuse(path, "uniqueItems", "is not supported");
    if (first != nullptr) {
      if (!first->is_array()) refuse(path, "prefixItems", "expected a list");
      json::array list;
      for (size_t i = 0; i < first->get_array().size(); ++i) {
        list.push_back(check(first->get_array()[i], fmt::format("{}.prefixItems.{}", path, i)));
      }
      out["prefixItems"] = std::move(list);
    }
    if (items == nullptr) {
      out["items"] = first == nullptr ? json::value(json::object()) : json::value(false);
    } else {
      out["items"] = *items == false ? json::value(false) : check(*items, path + ".items");
    }
  }

  // Beside properties that are named there are no others: a name may be written in several ways,
  // and a grammar does not see that two are the same.
  void check_object(const json::object& in, json::object& out, const std::string& path) {
    const json::value *properties = in.if_contains("properties"),
                      *more = in.if_contains("additionalProperties"),
                      *required = in.if_contains("required");
    if (properties != nullptr) {
      out["properties"] = check_map(*properties, path + ".properties");
      if (more != nullptr && !more->is_bool())
        refuse(path, "additionalProperties",
               "is supported as true or false beside 'properties'; answers have no others");
      out["additionalProperties"] = false;
    } else if (more == nullptr || more->is_bool()) {
      out["additionalProperties"] = more == nullptr ? json::value(true) : *more;
    } else {
      out["additionalProperties"] = check(*more, path + ".additionalProperties");
    }
    if (required == nullptr) return;
    if (!required->is_array()) refuse(path, "required", "expected a list");
    const json::array& names = required->get_array();
    for (size_t i = 0; i < names.size(); ++i) {
      const bool known = properties != nullptr && names[i].is_string() &&
                         properties->get_object().contains(names[i].get_string());
      if (!known)
        throw SchemaError(fmt::format("{}.required.{}", path, i), "names none of the 'properties'");
    }
    out["required"] = *required;
  }

  json::object check_map(const json::value& map, const std::string& path) {
    if (!map.is_object()) throw SchemaError(path, "expected an object");
    json::object out;
    for (const auto& [name, schema] : map.get_object())
      out[name] = check(schema, fmt::format("{}.{}", path, std::string_view(name)));
    return out;
  }

  const json::value& root_;
  int64_t count_ = 0;
};

}  // namespace

json::value checked_schema(const json::value& schema, const std::string& path) {
  return Checker(schema).check(schema, path);
}

}  // namespace halo
