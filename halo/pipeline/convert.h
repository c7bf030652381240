// The whole pipeline in one run folder (docs/formats/run-folder.md).
#pragma once

#include <filesystem>
#include <span>
#include <string>

#include "halo/pipeline/stage.h"

namespace halo {

struct ConvertArgs {
  std::filesystem::path run;
  bool resume = false;
  std::string command;  // as typed, for the record
};

// Runs the stages that are not done yet, each from the newest checkpoint it has, then evaluates.
// Leaves RUN/model (the student) and RUN/summary.json. A folder that is not empty is refused
// without `resume`; a resumed run must have the recipe it began with.
void convert(const Recipe& recipe, const ConvertArgs& args,
             std::span<const Stage> stages = pipeline_stages());

}  // namespace halo
