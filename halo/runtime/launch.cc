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
#include "halo/runtime/communicator.h"
#include "halo/runtime/rank_store.h"

namespace halo {
namespace {

using Clock = std::chrono::steady_clock;

constexpr int kRankLost = 5;
// For the others to see that one has gone and to write down what they were at.
constexpr std::chrono::seconds kGrace{10};

struct Child {
  int64_t rank;
  pid_t process;
  bool running = true;
};

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
    std::optional<int> code;
    std::optional<Clock::time_point> deadline;
    bool told = false;
    while (running() > 0) {
      if (stop_requested() && !told) {
        send(SIGTERM);
        told = true;
      }
      for (Child& child : children_) {
        int status = 0;
        if (!child.running || waitpid(child.process, &status, WNOHANG) != child.process) continue;
        child.running = false;
        const int its_code = WIFSIGNALED(status) ? kRankLost : WEXITSTATUS(status);
        if (its_code == 0 || code) continue;
        code = its_code;
        deadline = Clock::now() + kGrace;
        if (WIFSIGNALED(status)) {
          say(fmt::format("halo launch: rank {} (process {}) ended by signal {} ({})", child.rank,
                          child.process, WTERMSIG(status), strsignal(WTERMSIG(status))));
        }
      }
      if (deadline && Clock::now() > *deadline) send(SIGKILL);
      std::this_thread::sleep_for(std::chrono::milliseconds(50));
    }
    return code.value_or(0);
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
    const pid_t process = fork();
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

  int64_t running() const { return std::ranges::count(children_, true, &Child::running); }

  void send(int signal) const {
    for (const Child& child : children_) {
      if (child.running) kill(child.process, signal);
    }
  }

  std::vector<Child> children_;
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
