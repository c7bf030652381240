// Children of a test, made by fork: what they do ends as the program would, and a test may kill or
// stop them. Loading the program anew would take most of the time. A child computes on one thread,
// since those of its parent are missing in it.
#pragma once

#include <gtest/gtest.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

#include <filesystem>
#include <functional>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "ATen/Parallel.h"
#include "halo/base/check.h"
#include "halo/base/files.h"
#include "halo/base/stop.h"
#include "halo/runtime/communicator.h"
#include "halo/runtime/rank_store.h"

namespace halo::test {

// What the program would do: an exit code, and on stderr why.
inline int exit_code_of(const std::function<void()>& command) {
  int code = 0;
  std::string why;
  try {
    install_stop_handler([](const std::string& signal) {
      fmt::print(stderr, "stopped by {}\n", signal);
      fflush(stderr);
      _exit(3);
    });
    command();
  } catch (const Stopped& error) {
    code = 3, why = error.what();
  } catch (const GateFailed& error) {
    code = 4, why = error.what();
  } catch (const RankLost& error) {
    code = 5, why = error.what();
  } catch (const GroupEnded& ended) {
    return ended.code();
  } catch (const Error& error) {
    code = 1, why = error.what();
  } catch (const std::exception& error) {
    code = 98, why = error.what();
  }
  fmt::print(stderr, "halo: {}\n", why);
  return code;
}

// A child that runs `command` with its output in `log`.
inline pid_t start_child(const std::filesystem::path& log, const std::function<void()>& command) {
  const pid_t process = fork();
  if (process != 0) return process;
  if (!freopen(log.c_str(), "w", stderr)) _exit(99);
  dup2(2, 1);
  at::set_num_threads(1);
  const int code = exit_code_of(command);
  fflush(stderr);
  _exit(code);
}

// Its exit code, or where a signal ended it that, negative.
inline int wait_for(pid_t process) {
  int status = 0;
  waitpid(process, &status, 0);
  return WIFEXITED(status) ? WEXITSTATUS(status) : -WTERMSIG(status);
}

// Ranks 0 .. n-1, each told by its environment which one it is, as `halo launch` does. Those that
// still run when this goes are killed.
class RankProcesses {
 public:
  // `work` is called in each child; `logs`: a folder for what they print, rank-R.log.
  RankProcesses(int64_t n, std::filesystem::path logs,
                const std::function<void(int64_t rank)>& work)
      : logs_(std::move(logs)), ended_(n, false) {
    std::filesystem::create_directories(logs_);
    // LibTorch's store asks for the name of each address that comes to it.
    setenv("RES_OPTIONS", "timeout:1 attempts:1", 1);
    for (int64_t rank = 0; rank < n; ++rank) {
      processes_.push_back(start_child(log(rank), [&] {
        set("RANK", rank);
        set("LOCAL_RANK", rank);
        set("WORLD_SIZE", n);
        set("LOCAL_WORLD_SIZE", n);
        set("MASTER_PORT", store_.port());
        setenv("MASTER_ADDR", "127.0.0.1", 1);
        setenv("TORCHELASTIC_USE_AGENT_STORE", "True", 1);
        work(rank);
      }));
    }
  }
  ~RankProcesses() {
    for (int64_t rank = 0; rank < std::ssize(processes_); ++rank) {
      if (ended_[rank]) continue;
      kill(processes_[rank], SIGKILL);
      wait_for(processes_[rank]);
    }
  }
  RankProcesses(const RankProcesses&) = delete;

  void send(int64_t rank, int signal) const {
    if (!ended_[rank]) kill(processes_[rank], signal);
  }
  pid_t process(int64_t rank) const { return processes_[rank]; }
  int wait(int64_t rank) {
    ended_[rank] = true;
    return wait_for(processes_[rank]);
  }
  // Exit codes of all; those of `killed` are killed first when the others have ended.
  std::vector<int> wait_all(std::optional<int64_t> killed = std::nullopt) {
    std::vector<int> codes(processes_.size());
    for (int64_t rank = 0; rank < std::ssize(processes_); ++rank) {
      if (rank != killed) codes[rank] = wait(rank);
    }
    if (killed) {
      send(*killed, SIGKILL);
      codes[*killed] = wait(*killed);
    }
    return codes;
  }
  std::filesystem::path log(int64_t rank) const { return logs_ / fmt::format("rank-{}.log", rank); }
  // What the ranks printed, for messages of tests.
  std::string said() const {
    std::string text;
    for (int64_t rank = 0; rank < std::ssize(processes_); ++rank) {
      text += fmt::format("rank {}: {}\n", rank, read_file(log(rank)));
    }
    return text;
  }

 private:
  static void set(const char* name, int64_t value) {
    setenv(name, std::to_string(value).c_str(), 1);
  }

  RankStore store_;
  std::filesystem::path logs_;
  std::vector<pid_t> processes_;
  std::vector<bool> ended_;
};

}  // namespace halo::test
