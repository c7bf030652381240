// How far a run has come: finished, failed, stopped or still going.
#pragma once

#include <string>

#include "halo/report/run_files.h"

namespace halo {

struct RunState {
  enum class Kind { kDone, kRunning, kFailed, kStopped, kOther };
  Kind kind = Kind::kOther;
  std::string stage;   // where it stands, unless it is done; "eval" after the last stage
  std::string reason;  // as STATUS gives it, perhaps empty
};

// By STATUS and whether a process works in the folder, and by the stages' files where those say
// less.
RunState run_state(const RunFiles& run);

// A box that says it: what is reached, the figure and the bound of a gate that failed and what to
// do, or the stage and the step of a run that goes on.
std::string banner(const RunFiles& run);
// The same in one line, under a name.
std::string short_banner(const RunFiles& run, const std::string& name);

}  // namespace halo
