// Whether at most one of some schemas can take a value.
#pragma once

#include <string_view>

#include "halo/base/json.h"

namespace halo {

bool is_type(std::string_view word);  // "object", "integer", ...
bool is_of(const json::value& value, std::string_view type);

// The part of `root` that "#" or "#/..." names; null where there is none.
const json::value* resolve_ref(const json::value& root, std::string_view uri);

// Told by types, constants, or constants of a property that both must have; false where it does not
// show.
bool are_exclusive(const json::value& root, const json::array& schemas);

}  // namespace halo
