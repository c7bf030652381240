// One line on stderr, and the signals that ask for a stop.
#include "halo/base/progress.h"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <csignal>
#include <cstdio>

namespace halo {
namespace {

using std::chrono::duration;
using std::chrono::steady_clock;

constexpr std::chrono::milliseconds kTerminalInterval{100}, kPlainInterval{5000};

std::string format_seconds(double seconds) {
  const int64_t s = static_cast<int64_t>(seconds + 0.5);
  if (s < 60) return fmt::format("{}s", s);
  if (s < 3600) return fmt::format("{}m{:02}s", s / 60, s % 60);
  return fmt::format("{}h{:02}m", s / 3600, s / 60 % 60);
}

// A signal handler can reach nothing but a static.
std::atomic<bool> stop_flag = false;
static_assert(std::atomic<bool>::is_always_lock_free);

void on_stop_signal(int signal) {
  if (stop_flag.exchange(true)) {
    std::signal(signal, SIG_DFL);
    raise(signal);
  }
}

}  // namespace

Progress::Progress(std::string title, int64_t total)
    : title_(std::move(title)),
      total_(total),
      terminal_(isatty(STDERR_FILENO) != 0),
      start_(steady_clock::now()),
      last_(start_ - kPlainInterval) {}

Progress::~Progress() {
  if (line_open_) std::fputc('\n', stderr);
}

void Progress::print(const std::string& line) {
  // \x1b[K clears what a longer line left behind.
  fmt::print(stderr, "{}{}{}", terminal_ ? "\r\x1b[K" : "", line, terminal_ ? "" : "\n");
  std::fflush(stderr);
  line_open_ = terminal_;
}

void Progress::update(int64_t done, const std::string& text) {
  const auto now = steady_clock::now();
  if (first_done_ < 0) {
    // A resumed run starts in the middle: its pace counts from here.
    first_done_ = done;
    start_ = now;
  }
  if (done < total_ && now - last_ < (terminal_ ? kTerminalInterval : kPlainInterval)) return;
  last_ = now;
  std::string eta;
  if (done > first_done_ && done < total_) {
    const double seconds = duration<double>(now - start_).count();
    eta = "  ETA " + format_seconds(seconds / (done - first_done_) * (total_ - done));
  }
  print(fmt::format("{}: {}/{}  {}{}", title_, done, total_, text, eta));
}

void Progress::finish(const std::string& text) {
  const double seconds = duration<double>(steady_clock::now() - start_).count();
  print(fmt::format("{}: {}  ({})", title_, text, format_seconds(seconds)));
  if (line_open_) std::fputc('\n', stderr);
  line_open_ = false;
}

void warn(const std::string& what) {
  fmt::print(stderr, "warning: {}\n", what);
}

void install_stop_handler() {
  struct sigaction action = {};
  action.sa_handler = on_stop_signal;
  // Reads and writes in flight are not to fail with EINTR.
  action.sa_flags = SA_RESTART;
  sigaction(SIGTERM, &action, nullptr);
  sigaction(SIGINT, &action, nullptr);
}

bool stop_requested() {
  return stop_flag;
}

}  // namespace halo
