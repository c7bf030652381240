// The whole pipeline in one run folder (docs/formats/run-folder.md).
#pragma once

#include <filesystem>
#include <span>
#include <string>

#include "halo/pipeline/stage.h"
#include "halo/runtime/communicator.h"

namespace halo {

struct ConvertArgs {
  std::filesystem::path run;
  bool resume = false;
  std::string command;  // as typed, without --resume and --from: for the record and in advice
  std::string from;     // a stage that is done again, and those after it; empty: none
};

// Runs the stages that are not done yet, each from the newest checkpoint it has, then evaluates.
// Leaves RUN/model (the student) and RUN/summary.json. A folder that is not empty is refused
// without `resume` or `from`. A stage that starts from a model which was made anew is done again;
// one that was made with other settings, another teacher or other shards is refused by name.
//
// This and the two below are called by every rank: the first one does them, and the others train
// with it.
void convert(const Recipe& recipe, const ConvertArgs& args, Communicator& ranks = one_rank(),
             std::span<const Stage> stages = pipeline_stages());

// One stage of a run, again if it is done. The run's recipe becomes `recipe`, with which stages
// before it must have been made. Model and figures of the run stay, and STATUS says if they are
// stale.
void convert_stage(const Recipe& recipe, const ConvertArgs& args, const Stage& stage,
                   Communicator& ranks = one_rank());

// One stage outside a run folder. A folder with a finished stage, or with checkpoints that were
// made of something else, is refused.
void run_stage(const Recipe& recipe, const Stage& stage, const StageArgs& args,
               Communicator& ranks = one_rank());

// A new run folder TO with the stages of `run` before `stage`, for a recipe that differs from
// there on. Weights are linked, or copied where they cannot be.
void branch(const std::filesystem::path& run, const std::string& stage,
            const std::filesystem::path& to, std::span<const Stage> stages = pipeline_stages());

}  // namespace halo
