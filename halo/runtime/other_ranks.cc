#include "halo/runtime/other_ranks.h"

#include <poll.h>
#include <signal.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>

#include "halo/base/stop.h"
#include "halo/base/stop_request.h"
#include "halo/runtime/communicator.h"

namespace halo {

double WaitClock::seconds() {
  const auto now = std::chrono::steady_clock::now();
  waited_ += std::min(1.0, std::chrono::duration<double>(now - looked_).count());
  looked_ = now;
  return waited_;
}

double SignsOfLife::silence(int64_t rank, uint64_t number, double now) {
  Sign& last = last_[rank];
  if (last.number != number) last = {number, now};
  return now - last.seen;
}

double SignsOfLife::period(double time_limit) {
  return std::min(0.5, time_limit / 10);
}

bool lives(int process) {
  const int fd = static_cast<int>(syscall(SYS_pidfd_open, process, 0));
  if (fd < 0) return kill(process, 0) == 0 || errno != ESRCH;  // not there, or not for us
  pollfd end{.fd = fd, .events = POLLIN, .revents = 0};
  const bool ended = poll(&end, 1, 0) == 1;
  close(fd);
  return !ended;
}

void lose_rank(const std::string& why) {
  throw RankLost(why + "; the run goes on from its newest checkpoint");
}

void lose_silent_rank(int64_t rank, double seconds) {
  lose_rank(fmt::format("rank {} has shown no sign of life for {:g} seconds (run.rank_seconds)",
                        rank, seconds));
}

void end_with(int64_t rank, int exit_code) {
  if (exit_code != kStoppedCode)
    throw GroupEnded(fmt::format("ended with rank {}", rank), exit_code);
  request_stop();
  // Its end tells the thread that handles signals that an exception ends the process.
  const StopLater unwinding("");
  throw Stopped(fmt::format("rank {} was told to stop; what was not finished is not kept", rank));
}

}  // namespace halo
