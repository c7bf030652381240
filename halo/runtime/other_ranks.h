// What a rank makes of the others while it waits for them: whether they live, and how it ends where
// they do.
#pragma once

#include <chrono>
#include <cstdint>
#include <string>
#include <vector>

namespace halo {

// Seconds that this process has waited. A look counts for a second at most, so the hours in which
// the process itself was stopped count for next to nothing.
class WaitClock {
 public:
  double seconds();

 private:
  std::chrono::steady_clock::time_point looked_ = std::chrono::steady_clock::now();
  double waited_ = 0;
};

// Each process that is a rank counts up a number as long as it lives, on a thread of its own: that
// goes on however long its work takes, and stops where the process is stopped or dies.
class SignsOfLife {
 public:
  explicit SignsOfLife(int64_t ranks) : last_(ranks) {}
  // How long the number of `rank` has been what it is now, in seconds; `now` by the waiter's clock.
  double silence(int64_t rank, uint64_t number, double now);
  // Seconds between two signs where a rank may be silent for `time_limit`.
  static double period(double time_limit);

 private:
  struct Sign {
    uint64_t number = 0;
    double seen = 0;
  };
  std::vector<Sign> last_;
};

// Whether a process of this machine lives. One that has ended does not, even if nobody has asked
// for its exit code yet.
bool lives(int process);

[[noreturn]] void lose_rank(const std::string& why);
[[noreturn]] void lose_silent_rank(int64_t rank, double seconds);

// Another rank has ended with this exit code. Where it was told to stop, so is this one: Stopped,
// and the stop handler leaves this process to the exception.
[[noreturn]] void end_with(int64_t rank, int exit_code);

inline constexpr int kStoppedCode = 3;  // exit code of those that were told to stop

}  // namespace halo
