// Reads the members of a request's object. What is wrong is an ApiError 400 whose `param` is the
// member's dotted path; null is as good as absent.
#pragma once

#include <limits>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "halo/base/json.h"
#include "halo/server/api_error.h"

namespace halo {

class Fields {
 public:
  // `value` must be an object, and outlive this.
  explicit Fields(const json::value& value, std::string path = "");

  // Null where there is none.
  const json::value* find(std::string_view key) const;
  bool has(std::string_view key) const { return find(key) != nullptr; }

  std::optional<bool> boolean(std::string_view key) const;
  std::optional<int64_t> integer(std::string_view key, int64_t min, int64_t max) const;
  std::optional<double> number(std::string_view key, double min, double max) const;
  std::optional<std::string> text(std::string_view key) const;
  const json::array* array(std::string_view key) const;
  const json::object* object(std::string_view key) const;
  // The same, which must be there.
  std::string required_text(std::string_view key) const;
  const json::array& required_array(std::string_view key) const;

  // "stream_options.include_usage"
  std::string path(std::string_view key) const;
  // Members that nobody asked for.
  std::vector<std::string> unknown() const;

  [[noreturn]] void refuse(std::string_view key, const std::string& message,
                           std::string code = "invalid_value") const;

 private:
  const json::object& object_;
  const std::string path_;
  mutable std::set<std::string, std::less<>> asked_;
};

// "messages.3" of an element.
std::string element_path(const std::string& path, size_t index);
// "text", "an object": of a message about a value of another kind.
std::string_view kind_of(const json::value& value);

}  // namespace halo
