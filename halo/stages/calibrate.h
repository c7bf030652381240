// transfer.init = "calibrated" (hypenet.md 2.1): value scales and gates of lightning layers in
// closed form from what the teacher's attention puts out.
#pragma once

#include <vector>

#include "halo/model/decoder.h"

namespace halo {

// `student` has the weights of `match`; its lightning layers get v_proj with a scale a head, so
// that each head has the teacher's share of the power, and z_proj with one gate a head, by least
// squares on the mixer's input. Both from the same batches.
void calibrate_heads(const Model& teacher, const ModelConfig& config, ParameterStore& student,
                     const std::vector<Batch>& batches);

}  // namespace halo
