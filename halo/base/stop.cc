// Signals: the handler writes to a pipe, a thread reads from it and may do what a handler may not.
#include "halo/base/stop.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <csignal>
#include <cstdio>
#include <exception>
#include <mutex>
#include <thread>
#include <utility>

#include "halo/base/stop_request.h"

namespace halo {
namespace {

// A signal handler can reach nothing but statics.
std::atomic<bool> stop_flag = false;    // told to stop
std::atomic<bool> signal_flag = false;  // by a signal
std::atomic<int> pipe_end = -1;
static_assert(std::atomic<bool>::is_always_lock_free && std::atomic<int>::is_always_lock_free);

void tell_to_stop(int signal) {
  if (stop_flag.exchange(true)) return;
  const auto byte = static_cast<char>(signal);
  // The pipe has room: this is the only byte but one.
  [[maybe_unused]] const ssize_t written = write(pipe_end, &byte, 1);
}

void on_stop_signal(int signal) {
  if (signal_flag.exchange(true)) {
    std::signal(signal, SIG_DFL);
    raise(signal);
  }
  tell_to_stop(signal);
}

// What a stop must know of the process. The thread that ends it keeps the lock for good, so that
// nobody begins or finishes a file behind its back; it may itself write one.
struct Stops {
  std::recursive_mutex mutex;
  std::list<std::string> later;
  bool is_stopping = false;  // state was saved, and an exception ends the process
  std::list<std::function<void()>> actions;
  std::function<void(const std::string&)> end;
};

// Never destroyed: the thread may outlive main.
Stops& stops() {
  static Stops* const all = new Stops;
  return *all;
}

void stop(int signal) {
  const std::string name = signal == SIGINT ? "SIGINT" : signal == SIGUSR1 ? "SIGUSR1" : "SIGTERM";
  Stops& all = stops();
  const std::lock_guard lock(all.mutex);
  if (all.is_stopping) return;
  if (!all.later.empty()) {
    const auto said =
        std::ranges::find_if(all.later, [](const auto& what) { return !what.empty(); });
    if (said == all.later.end()) return;
    fmt::print(stderr, "{}: {}, then the command ends; a second signal kills it\n", name, *said);
    return;
  }
  while (!all.actions.empty()) {
    const std::function<void()> action = std::move(all.actions.back());
    all.actions.pop_back();
    action();
  }
  all.end(name);
}

}  // namespace

void install_stop_handler(std::function<void(const std::string& signal)> end) {
  stops().end = std::move(end);
  int ends[2];
  if (pipe2(ends, O_CLOEXEC) != 0) return;  // a signal then kills, as without a handler
  pipe_end = ends[1];
  std::thread([from = ends[0]] {
    for (char signal; read(from, &signal, 1) == 1;) stop(signal);
  }).detach();
  struct sigaction action = {};
  action.sa_handler = on_stop_signal;
  // Reads and writes in flight are not to fail with EINTR.
  action.sa_flags = SA_RESTART;
  sigaction(SIGTERM, &action, nullptr);
  sigaction(SIGINT, &action, nullptr);
  sigaction(SIGUSR1, &action, nullptr);  // with which Slurm warns ahead
  // Who started this process may have held them back until now.
  const sigset_t signals = stop_signals();
  pthread_sigmask(SIG_UNBLOCK, &signals, nullptr);
}

sigset_t stop_signals() {
  sigset_t signals;
  sigemptyset(&signals);
  for (const int signal : {SIGTERM, SIGINT, SIGUSR1}) sigaddset(&signals, signal);
  return signals;
}

void request_stop() {
  tell_to_stop(SIGTERM);
}

bool stop_requested() {
  return stop_flag;
}

StopLater::StopLater(std::string what) {
  const std::lock_guard lock(stops().mutex);
  place_ = stops().later.insert(stops().later.end(), std::move(what));
}

StopLater::~StopLater() {
  {
    const std::lock_guard lock(stops().mutex);
    stops().later.erase(place_);
    if (!stop_flag || !stops().later.empty()) return;
    // The thread may not have heard of the signal yet.
    stops().is_stopping = std::uncaught_exceptions() > 0;
    if (stops().is_stopping) return;
  }
  // Told to stop, and nobody did: the code around had ended before it asked.
  const auto byte = static_cast<char>(SIGTERM);
  if (write(pipe_end, &byte, 1) == 1) {
    while (true) pause();
  }
}

AtStop::AtStop(std::function<void()> action) {
  const std::lock_guard lock(stops().mutex);
  place_ = stops().actions.insert(stops().actions.end(), std::move(action));
}

AtStop::~AtStop() {
  const std::lock_guard lock(stops().mutex);
  stops().actions.erase(place_);
}

}  // namespace halo
