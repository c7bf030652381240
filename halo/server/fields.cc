#include "halo/server/fields.h"

#include <cmath>

namespace halo {
namespace {

const json::object& object_of(const json::value& value, const std::string& path) {
  if (const auto* object = value.if_object()) return *object;
  throw bad_field(path, fmt::format("expected an object, got {}", kind_of(value)), "invalid_type");
}

}  // namespace

std::string_view kind_of(const json::value& value) {
  switch (value.kind()) {
    case json::kind::null:
      return "null";
    case json::kind::bool_:
      return "true or false";
    case json::kind::int64:
    case json::kind::uint64:
      return "an integer";
    case json::kind::double_:
      return "a number";
    case json::kind::string:
      return "text";
    case json::kind::array:
      return "a list";
    case json::kind::object:
      return "an object";
  }
  return "a value";
}

std::string element_path(const std::string& path, size_t index) {
  return path.empty() ? std::to_string(index) : fmt::format("{}.{}", path, index);
}

Fields::Fields(const json::value& value, std::string path)
    : object_(object_of(value, path)), path_(std::move(path)) {}

const json::value* Fields::find(std::string_view key) const {
  asked_.emplace(key);
  const json::value* value = object_.if_contains(key);
  return value == nullptr || value->is_null() ? nullptr : value;
}

std::string Fields::path(std::string_view key) const {
  return path_.empty() ? std::string(key) : fmt::format("{}.{}", path_, key);
}

void Fields::refuse(std::string_view key, const std::string& message, std::string code) const {
  throw bad_field(path(key), message, std::move(code));
}

std::optional<bool> Fields::boolean(std::string_view key) const {
  const json::value* value = find(key);
  if (value == nullptr) return std::nullopt;
  if (!value->is_bool())
    refuse(key, fmt::format("expected true or false, got {}", kind_of(*value)), "invalid_type");
  return value->get_bool();
}

std::optional<int64_t> Fields::integer(std::string_view key, int64_t min, int64_t max) const {
  constexpr double kAny = std::numeric_limits<double>::infinity();
  const std::optional<double> number = this->number(key, -kAny, kAny);
  if (!number) return std::nullopt;
  if (*number != std::floor(*number))
    refuse(key, fmt::format("expected an integer, got {}", *number), "invalid_type");
  if (*number < static_cast<double>(min) || *number > static_cast<double>(max))
    refuse(key, fmt::format("expected an integer from {} to {}, got {}", min, max, *number));
  const json::value& value = *find(key);
  return value.is_int64() ? value.get_int64() : static_cast<int64_t>(*number);
}

std::optional<double> Fields::number(std::string_view key, double min, double max) const {
  const json::value* value = find(key);
  if (value == nullptr) return std::nullopt;
  if (!value->is_number())
    refuse(key, fmt::format("expected a number, got {}", kind_of(*value)), "invalid_type");
  const auto number = value->to_number<double>();
  if (number >= min && number <= max) return number;
  refuse(key, fmt::format("expected a number from {} to {}, got {}", min, max, number));
}

std::optional<std::string> Fields::text(std::string_view key) const {
  const json::value* value = find(key);
  if (value == nullptr) return std::nullopt;
  if (!value->is_string())
    refuse(key, fmt::format("expected text, got {}", kind_of(*value)), "invalid_type");
  return std::string(value->get_string());
}

const json::array* Fields::array(std::string_view key) const {
  const json::value* value = find(key);
  if (value == nullptr) return nullptr;
  if (!value->is_array())
    refuse(key, fmt::format("expected a list, got {}", kind_of(*value)), "invalid_type");
  return &value->get_array();
}

const json::object* Fields::object(std::string_view key) const {
  const json::value* value = find(key);
  if (value == nullptr) return nullptr;
  return &object_of(*value, path(key));
}

std::string Fields::required_text(std::string_view key) const {
  std::optional<std::string> value = text(key);
  if (!value) refuse(key, "is missing", "missing_required_parameter");
  return *std::move(value);
}

const json::array& Fields::required_array(std::string_view key) const {
  const json::array* value = array(key);
  if (value == nullptr) refuse(key, "is missing", "missing_required_parameter");
  return *value;
}

std::vector<std::string> Fields::unknown() const {
  std::vector<std::string> out;
  for (const auto& [key, value] : object_) {
    if (!asked_.contains(std::string_view(key.data(), key.size()))) out.emplace_back(key);
  }
  return out;
}

}  // namespace halo
