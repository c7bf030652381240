// Variable tracking: a chain of assignments among noise; which variables have its value?
#pragma once

#include "halo/eval/tasks/made/prompt.h"

namespace halo::made {

// One chain of five variables, behind a solved example of the same kind.
Compose variables(const Random& random);
inline constexpr int64_t kLeastVariablesHay = 5;

}  // namespace halo::made
