// Weights that no model can have: a file that was damaged, or never written to its end.
#pragma once

#include <string>

#include "halo/formats/safetensors.h"

namespace halo {

// An Error with `from` and the tensor's name where a floating tensor has NaN or infinite values, or
// one of these or of int8 is zero throughout. Zero may be what starts there (transfer.h) or follows
// from the rest: biases, output gates, output norms.
void check_values(const TensorView& tensor, const std::string& from);

}  // namespace halo
