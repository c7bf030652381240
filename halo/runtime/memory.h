// How much memory a machine has.
#pragma once

#include <cstdint>

#include "halo/runtime/machine.h"

namespace halo {

// Bytes of the device's memory; on a CPU what this process may use of it (its control
// group, its address space).
int64_t total_memory(const Machine& machine);

}  // namespace halo
