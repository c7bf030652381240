// Starts the ranks of a command on this machine, as torchrun does: a process each, told by its
// environment which one it is.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace halo {

struct LaunchArgs {
  int64_t ranks = 1;
  int64_t max_restarts = 0;
  std::vector<std::string> command;  // of this program: "convert", "demo.toml", ...
};

// Returns when all ranks have ended, with the exit code of the one that ended first and not well;
// 5 where it was killed, 3 where by a signal that asks to stop. After 5 all are started anew, up to
// max_restarts times, to go on from their newest checkpoint; what ended with another code would do
// so again and is not. Ranks that have been stopped (SIGSTOP) when the others have ended are
// killed. A signal to this process goes to all ranks, once; then GroupEnded says what they ended
// with.
int launch(const LaunchArgs& args);

}  // namespace halo
