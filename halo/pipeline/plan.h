// What a conversion will take, before anything runs.
#pragma once

#include <span>

#include "halo/base/json.h"
#include "halo/pipeline/links.h"
#include "halo/pipeline/stage.h"

namespace halo {

// Per stage: tokens, steps, FLOPs (2 a multiply-add; attention counted causal), seconds at least
// and as expected at the given rates of each rank (token_seconds(); null where they are not known,
// in fp32 and with learned decays), those that ranks with such links talk, most of them beside what
// they compute, bytes of memory of a rank (parameters, gradients, moments, activations of a
// micro-batch) and of disk. Reads the teacher's config.json; opens no shard.
json::object plan(const Recipe& recipe, const Rates& rates, const Links& links = {},
                  std::span<const Stage> stages = pipeline_stages());

// A plan as a table for people.
std::string format_plan(const json::object& plan);

}  // namespace halo
