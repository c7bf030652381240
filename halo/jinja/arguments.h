// The arguments of a call, and how a function takes them.
#pragma once

#include <initializer_list>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "halo/jinja/value.h"

namespace halo::jinja {

struct Arguments {
  std::vector<Value> positional;
  std::vector<std::pair<std::string, Value>> named;
};

// Arguments matched with a function's parameters: one given in place or by name, none twice, none
// unknown.
class Bound {
 public:
  Bound(std::string_view function, Arguments arguments,
        std::initializer_list<std::string_view> parameters, size_t num_required = 0);

  bool has(size_t i) const { return values_[i].has_value(); }
  const Value& operator[](size_t i) const { return *values_[i]; }
  // Given and not None, as defaults are asked for.
  bool has_value(size_t i) const { return has(i) && !values_[i]->is_none(); }
  Value get_or(size_t i, Value otherwise) const { return has(i) ? *values_[i] : otherwise; }
  // An Error names the parameter if the value is of another kind.
  const std::string& text(size_t i) const;
  int64_t integer(size_t i) const;
  int64_t integer_or(size_t i, int64_t otherwise) const { return has(i) ? integer(i) : otherwise; }
  bool truth_or(size_t i, bool otherwise) const {
    return has(i) ? is_true(*values_[i]) : otherwise;
  }

 private:
  [[noreturn]] void wrong(size_t i, std::string_view expected) const;

  std::string function_;
  std::vector<std::string_view> parameters_;
  std::vector<std::optional<Value>> values_;
};

}  // namespace halo::jinja
