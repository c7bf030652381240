#include "halo/runtime/launch.h"

#include <signal.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cstdlib>
#include <cstring>
#include <optional>
#include <thread>

#include "halo/base/check.h"
#include "halo/base/progress.h"
#include "halo/base/stop.h"
#include "halo/base/stop_request.h"
#include "halo/runtime/communicator.h"
#include "halo/runtime/other_ranks.h"
#include "halo/runtime/rank_store.h"

namespace halo {
namespace {

using Clock = std::chrono::steady_clock;

constexpr int kRankLost = 5;
// For the others to see that one has gone and to write down what they were at.
constexpr std::chrono::seconds kGrace{10};
// For the others to hear from one that was told to stop, before they are told too.
constexpr std::chrono::seconds kWord{2};

struct Child {
  int64_t rank;
  pid_t process;
  bool running = true, stopped = false;  // stopped: by SIGSTOP and the like
};

bool asks_to_stop(int signal) {
  const sigset_t signals = stop_signals();
  return sigismember(&signals, signal) == 1;
}

// The ranks of one start. Those that still run when this goes are killed.
class Group {
 public:
  Group(const LaunchArgs& args, int64_t port, int64_t restarts) {
    for (int64_t rank = 0; rank < args.ranks; ++rank) start(args, rank, port, restarts);
  }
  ~Group() {
    send(SIGKILL);
    for (Child& child : children_) {
      if (child.running) waitpid(child.process, nullptr, 0);
    }
  }
  Group(const Group&) = delete;

  // The exit code of all together.
  int wait() {
    bool told = false;
    while (running() > 0) {
      const bool one_was_told = code_ == kStoppedCode && Clock::now() > *ended_ + kWord;
      if (!told && (stop_requested() || one_was_told)) {
        send(SIGTERM);
        told = true;
      }
      for (Child& child : children_) look_at(child);
      if (ended_ && (Clock::now() > *ended_ + kGrace || nobody_goes_on())) {
        killing_ = true;
        send(SIGKILL);
      }
      std::this_thread::sleep_for(std::chrono::milliseconds(50));
    }
    return code_.value_or(0);
  }

 private:
  void start(const LaunchArgs& args, int64_t rank, int64_t port, int64_t restarts) {
    std::vector<std::string> variables = {fmt::format("RANK={}", rank),
                                          fmt::format("LOCAL_RANK={}", rank),
                                          fmt::format("WORLD_SIZE={}", args.ranks),
                                          fmt::format("LOCAL_WORLD_SIZE={}", args.ranks),
                                          "MASTER_ADDR=127.0.0.1",
                                          fmt::format("MASTER_PORT={}", port),
                                          "TORCHELASTIC_USE_AGENT_STORE=True",
                                          fmt::format("TORCHELASTIC_RESTART_COUNT={}", restarts)};
    for (char** name = environ; *name; ++name) {
      const std::string variable = *name;
      const std::string key = variable.substr(0, variable.find('=') + 1);
      const bool is_ours = std::ranges::any_of(
          variables, [&](const std::string& ours) { return ours.starts_with(key); });
      if (!is_ours) variables.push_back(variable);
    }
    std::vector<std::string> words = {"halo"};
    words.insert(words.end(), args.command.begin(), args.command.end());
    std::vector<char*> argv, envp;
    for (std::string& word : words) argv.push_back(word.data());
    for (std::string& variable : variables) envp.push_back(variable.data());
    argv.push_back(nullptr);
    envp.push_back(nullptr);
    const pid_t parent = getpid();
    // A signal to a rank waits until there is somebody to hear it.
    const sigset_t signals = stop_signals();
    sigset_t before;
    pthread_sigmask(SIG_BLOCK, &signals, &before);
    const pid_t process = fork();
    if (process != 0) pthread_sigmask(SIG_SETMASK, &before, nullptr);
    if (process < 0) throw_error("halo launch: cannot start rank {}: {}", rank, strerror(errno));
    if (process == 0) {
      // A terminal's Ctrl-C is for the launcher, which passes it on once.
      setpgid(0, 0);
      prctl(PR_SET_PDEATHSIG, SIGKILL);
      if (getppid() != parent) _exit(kRankLost);
      execve("/proc/self/exe", argv.data(), envp.data());
      _exit(127);
    }
    children_.push_back({rank, process});
  }

  void look_at(Child& child) {
    int status = 0;
    if (!child.running ||
        waitpid(child.process, &status, WNOHANG | WUNTRACED | WCONTINUED) != child.process) {
      return;
    }
    child.stopped = WIFSTOPPED(status);
    if (WIFSTOPPED(status) || WIFCONTINUED(status)) return;
    child.running = false;
    if (killing_ || code_) return;
    const int signal = WIFSIGNALED(status) ? WTERMSIG(status) : 0;
    const int code = asks_to_stop(signal) ? kStoppedCode
                     : signal != 0        ? kRankLost
                                          : WEXITSTATUS(status);
    if (code != 0) code_ = code;
    // What there is to do, the first rank does last.
    if (code != 0 || child.rank == 0) ended_ = Clock::now();
    if (signal != 0) {
      say(fmt::format("halo launch: rank {} (process {}) ended by signal {} ({})", child.rank,
                      child.process, signal, strsignal(signal)));
    }
  }

  // Whether all that are left have been stopped.
  bool nobody_goes_on() const {
    return std::ranges::none_of(children_,
                                [](const Child& child) { return child.running && !child.stopped; });
  }

  int64_t running() const { return std::ranges::count(children_, true, &Child::running); }

  void send(int signal) const {
    for (const Child& child : children_) {
      if (child.running) kill(child.process, signal);
    }
  }

  std::vector<Child> children_;
  std::optional<int> code_;                 // of the first that ended, and not well
  std::optional<Clock::time_point> ended_;  // when the others had nothing left to wait for
  bool killing_ = false;
};

}  // namespace

int launch(const LaunchArgs& args) {
  const RankStore store;
  const StopLater later("the ranks save their state");
  for (int64_t restarts = 0;; ++restarts) {
    const int code = Group(args, store.port(), restarts).wait();
    if (stop_requested()) throw GroupEnded("", code);
    if (code != kRankLost) return code;
    if (restarts == args.max_restarts) {
      say("halo launch: a rank was lost; the same command with --resume goes on");
      return code;
    }
    say(
        fmt::format("halo launch: a rank was lost; start {} of {} goes on from the newest "
                    "checkpoint",
                    restarts + 2, args.max_restarts + 1));
  }
}

}  // namespace halo
