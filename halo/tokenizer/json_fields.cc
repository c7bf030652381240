#include "halo/tokenizer/json_fields.h"

#include "halo/base/check.h"
#include "halo/base/utf8.h"

namespace halo::tokenizer_json {
namespace {

void append_flat(const json::object& component, std::string_view key, const std::string& file,
                 std::vector<const json::object*>& out) {
  if (json_get<std::string>(component, "type", file) != "Sequence") {
    out.push_back(&component);
  } else {
    for (const json::value& part : array_at(component, key, file)) {
      if (!part.is_object()) throw_error("{}: '{}' must hold objects", file, key);
      append_flat(part.get_object(), key, file, out);
    }
  }
  if (out.size() > kMaxSteps) throw_error("{}: more than {} steps in '{}'", file, kMaxSteps, key);
}

}  // namespace

const json::value* find(const json::object& object, std::string_view key) {
  const json::value* value = object.if_contains(key);
  return value && !value->is_null() ? value : nullptr;
}

const json::object& object_at(const json::object& object, std::string_view key,
                              const std::string& file) {
  const json::value* value = find(object, key);
  if (!value || !value->is_object()) throw_error("{}: '{}' must be an object", file, key);
  return value->get_object();
}

const json::array& array_at(const json::object& object, std::string_view key,
                            const std::string& file) {
  const json::value* value = find(object, key);
  if (!value || !value->is_array()) throw_error("{}: '{}' must be an array", file, key);
  return value->get_array();
}

void check_default(const json::object& object, std::string_view owner, std::string_view key,
                   const json::value& allowed, const std::string& file) {
  const json::value* value = find(object, key);
  if (value && *value != allowed) {
    throw_error("{}: {} with '{}' = {} is not supported; only {}", file, owner, key,
                json::serialize(*value), json::serialize(allowed));
  }
}

std::string step_text(const json::object& object, std::string_view key, const std::string& file) {
  auto text = json_get<std::string>(object, key, file);
  if (text.empty() || text.size() > kMaxStepText) {
    throw_error("{}: '{}' has {} bytes; expected 1 to {}", file, key, text.size(), kMaxStepText);
  }
  return text;
}

std::string character_at(const json::object& object, std::string_view key,
                         const std::string& file) {
  auto text = json_get<std::string>(object, key, file);
  if (text.empty() || code_at(text, 0).end != text.size())
    throw_error("{}: '{}' is '{}'; expected one character", file, key, text);
  return text;
}

std::vector<const json::object*> flatten(const json::object& component, std::string_view key,
                                         const std::string& file) {
  std::vector<const json::object*> out;
  append_flat(component, key, file, out);
  return out;
}

}  // namespace halo::tokenizer_json
