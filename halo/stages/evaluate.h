// The figures of a report: teacher, student, and the student without its logit scale.
#pragma once

#include "halo/stages/context.h"

namespace halo {

// {"training_length", "teacher": {...}, "student": {...}} as summary.json has them (design: loss,
// bits_per_byte, needle, and for the student kl, needle_unscaled, mixer_types,
// attn_logits_scaling), each with its loss by position. Without a student, the teacher alone.
json::object evaluate(const StageContext& context, const fs::path& student);

}  // namespace halo
