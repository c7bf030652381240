// What a conversion will take, before anything runs.
#pragma once

#include <span>

#include "halo/base/json.h"
#include "halo/pipeline/links.h"
#include "halo/pipeline/stage.h"

namespace halo {

// Per stage: tokens, steps, FLOPs (2 a multiply-add; attention counted causal), seconds at the
// given matrix rate of each rank, those that ranks with such links talk, most of them beside what
// they compute, bytes of memory of a rank (parameters, gradients, moments, activations of a
// micro-batch) and of disk. Reads the teacher's config.json; opens no shard.
json::object plan(const Recipe& recipe, double matrix_gflops, const Links& links = {},
                  std::span<const Stage> stages = pipeline_stages());

// A plan as a table for people.
std::string format_plan(const json::object& plan);

}  // namespace halo
