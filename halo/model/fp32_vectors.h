// Weights as a CPU runs them best where they are in bf16.
#pragma once

#include "halo/model/decoder.h"

namespace halo {

// The same with every vector in fp32: activations are then fp32 too, and matrices, in fp32 or bf16,
// are only read (kernels/linear/linear.h). They ask for no gradient.
DecoderWeights with_fp32_vectors(DecoderWeights weights);

}  // namespace halo
