#include "halo/jinja/arguments.h"

#include <algorithm>

namespace halo::jinja {

Bound::Bound(std::string_view function, Arguments arguments,
             std::initializer_list<std::string_view> parameters, size_t num_required)
    : function_(function), parameters_(parameters), values_(parameters.size()) {
  if (arguments.positional.size() > parameters_.size()) {
    throw_error("'{}' takes {} arguments at most, not {}", function, parameters_.size(),
                arguments.positional.size());
  }
  std::ranges::move(arguments.positional, values_.begin());
  for (auto& [name, value] : arguments.named) {
    const auto found = std::ranges::find(parameters_, std::string_view(name));
    if (found == parameters_.end()) throw_error("'{}' has no argument '{}'", function, name);
    auto& slot = values_[found - parameters_.begin()];
    if (slot) throw_error("'{}' is given '{}' twice", function, name);
    slot = std::move(value);
  }
  for (size_t i = 0; i < num_required; ++i) {
    if (!values_[i]) throw_error("'{}' needs the argument '{}'", function, parameters_[i]);
  }
}

const std::string& Bound::text(size_t i) const {
  if (!values_[i]->is_string()) wrong(i, "a text");
  return values_[i]->text();
}

int64_t Bound::integer(size_t i) const {
  if (!values_[i]->is_integral()) wrong(i, "an integer");
  return values_[i]->integer();
}

void Bound::wrong(size_t i, std::string_view expected) const {
  require_defined(*values_[i]);
  throw_error("'{}' of '{}' must be {}, not a {}", parameters_[i], function_, expected,
              type_name(*values_[i]));
}

}  // namespace halo::jinja
