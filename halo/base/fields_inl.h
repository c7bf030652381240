// The visitors behind fields.h; include that.
#pragma once

#include <concepts>
#include <cstdint>
#include <utility>

namespace halo {
namespace detail {

struct AnyVisitor {
  template <class T>
  void operator()(const char* name, T& member, const char* help);
};

template <class T>
concept HasFields = requires(T object, AnyVisitor visitor) {
  object.fields(visitor);
};
template <class T>
inline constexpr bool kIsVector = false;
template <class T>
inline constexpr bool kIsVector<std::vector<T>> = true;
template <class T>
inline constexpr bool kIsMap = std::is_same_v<T, std::map<std::string, double>>;

// Where a value stands, for messages. `merge`: one assignment rather than a file, so there is no
// line to name and the entries of a map that it is silent on stay.
struct FieldPlace {
  const std::string& file;
  std::string key;
  bool merge;

  FieldPlace child(std::string_view name) const {
    return {file, key.empty() ? std::string(name) : fmt::format("{}.{}", key, name), merge};
  }
};

[[noreturn]] void field_error(const FieldPlace& place, const toml::node& node,
                              const std::string& what);
[[noreturn]] void wrong_kind(const FieldPlace& place, const toml::node& node,
                             std::string_view expected);
void refuse_unknown_keys(const FieldPlace& place, const toml::table& table,
                         const std::vector<std::string>& known);
// "a.b=c" as the nested table {a = {b = c}}.
toml::table parse_assignment(std::string_view assignment);

void read_value(bool& out, const toml::node& node, const FieldPlace& place);
void read_value(int64_t& out, const toml::node& node, const FieldPlace& place);
void read_value(double& out, const toml::node& node, const FieldPlace& place);
void read_value(std::string& out, const toml::node& node, const FieldPlace& place);
void read_value(std::map<std::string, double>& out, const toml::node& node,
                const FieldPlace& place);

std::string value_to_toml(bool value);
std::string value_to_toml(int64_t value);
std::string value_to_toml(double value);
std::string value_to_toml(const std::string& value);
std::string value_to_toml(const std::map<std::string, double>& value);

template <HasFields T>
void read_table(T& object, const toml::table& table, const FieldPlace& place);

template <HasFields T>
void read_value(T& out, const toml::node& node, const FieldPlace& place) {
  if (!node.is_table()) wrong_kind(place, node, "a table");
  read_table(out, *node.as_table(), place);
}

template <class T>
void read_value(std::vector<T>& out, const toml::node& node, const FieldPlace& place) {
  const toml::array* array = node.as_array();
  if (array == nullptr) wrong_kind(place, node, "an array");
  out.clear();
  for (size_t i = 0; i < array->size(); ++i) {
    T element{};
    read_value(element, *array->get(i), place.child(std::to_string(i)));
    out.push_back(std::move(element));
  }
}

struct ReadVisitor {
  const toml::table& table;
  const FieldPlace& place;
  std::vector<std::string> known = {};

  template <class T>
  void operator()(const char* name, T& member, const char*) {
    known.emplace_back(name);
    if (const toml::node* node = table.get(name)) read_value(member, *node, place.child(name));
  }
};

template <HasFields T>
void read_table(T& object, const toml::table& table, const FieldPlace& place) {
  ReadVisitor visitor{table, place};
  object.fields(visitor);
  refuse_unknown_keys(place, table, visitor.known);
}

template <class T>
json::value value_to_json(const T& value);

struct JsonVisitor {
  json::object out;

  template <class T>
  void operator()(const char* name, T& member, const char*) {
    out[name] = value_to_json(member);
  }
};

template <class T>
json::value value_to_json(const T& value) {
  if constexpr (HasFields<T>) {
    return fields_to_json(value);
  } else if constexpr (kIsVector<T>) {
    json::array array;
    for (const typename T::value_type& element : value) array.push_back(value_to_json(element));
    return array;
  } else if constexpr (kIsMap<T>) {
    json::object object;
    for (const auto& [key, number] : value) object[key] = number;
    return object;
  } else {
    return json::value(value);
  }
}

template <HasFields T>
std::string value_to_toml(const T& value);

template <class T>
std::string value_to_toml(const std::vector<T>& value) {
  std::string out;
  for (const T& element : value) out += (out.empty() ? "" : ", ") + value_to_toml(element);
  return "[" + out + "]";
}

// Plain members first, then a section for each nested struct: TOML has no way back out of one.
struct TomlVisitor {
  std::string prefix, plain = {}, sections = {};

  template <class T>
  void operator()(const char* name, T& member, const char*) {
    if constexpr (HasFields<T>) {
      TomlVisitor nested{prefix + name + "."};
      member.fields(nested);
      sections += fmt::format("\n[{}{}]\n{}{}", prefix, name, nested.plain, nested.sections);
    } else {
      plain += fmt::format("{} = {}\n", name, value_to_toml(member));
    }
  }
};

struct InlineTomlVisitor {
  std::string out;

  template <class T>
  void operator()(const char* name, T& member, const char*) {
    out += fmt::format("{}{} = {}", out.empty() ? "" : ", ", name, value_to_toml(member));
  }
};

template <HasFields T>
std::string value_to_toml(const T& value) {
  InlineTomlVisitor visitor;
  T copy = value;
  copy.fields(visitor);
  return "{" + visitor.out + "}";
}

struct HelpVisitor {
  std::string prefix, out = {};

  template <class T>
  void operator()(const char* name, T& member, const char* help) {
    if constexpr (HasFields<T>) {
      HelpVisitor nested{prefix + name + "."};
      member.fields(nested);
      out += nested.out;
    } else {
      out += fmt::format("{}{}  ({})  {}\n", prefix, name, value_to_toml(member), help);
    }
  }
};

}  // namespace detail

template <class T>
void read_fields(T& object, const toml::table& table, const std::string& file) {
  detail::read_table(object, table, {file, "", false});
}

template <class T>
void set_field(T& object, std::string_view assignment) {
  const std::string file = "--set";
  detail::read_table(object, detail::parse_assignment(assignment), {file, "", true});
}

// fields() is not const, so the writers visit a copy.
template <class T>
json::object fields_to_json(const T& object) {
  detail::JsonVisitor visitor;
  T copy = object;
  copy.fields(visitor);
  return std::move(visitor.out);
}

template <class T>
std::string fields_to_toml(const T& object) {
  detail::TomlVisitor visitor;
  T copy = object;
  copy.fields(visitor);
  return visitor.plain + visitor.sections;
}

template <class T>
std::string fields_help(const T& object, std::string_view prefix) {
  detail::HelpVisitor visitor{std::string(prefix)};
  T copy = object;
  copy.fields(visitor);
  return visitor.out;
}

}  // namespace halo
