// `halo` as a child process.
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <fstream>
#include <iterator>
#include <sstream>

#include "halo/base/check.h"
#include "halo/base/files.h"
#include "tests/places.h"
#include "tests/system/world.h"

namespace halo::system_test {
namespace {

// In the child, after fork: only calls that are safe there.
[[noreturn]] void become_halo(char* const* argv, char* const* environment, const Process& process,
                              const char* out, const char* err) {
  if (process.max_file_bytes > 0) {
    // With SIGXFSZ ignored a write past the limit fails as one to a full disk does.
    ::signal(SIGXFSZ, SIG_IGN);
    const rlimit limit{static_cast<rlim_t>(process.max_file_bytes),
                       static_cast<rlim_t>(process.max_file_bytes)};
    setrlimit(RLIMIT_FSIZE, &limit);
  }
  if (process.max_memory_bytes > 0) {
    const rlimit limit{static_cast<rlim_t>(process.max_memory_bytes),
                       static_cast<rlim_t>(process.max_memory_bytes)};
    setrlimit(RLIMIT_AS, &limit);
  }
  if (!process.directory.empty() && chdir(process.directory.c_str()) != 0) _exit(127);
  dup2(open(out, O_WRONLY | O_CREAT | O_TRUNC, 0600), 1);
  if (!process.standard_input.empty()) dup2(open(process.standard_input.c_str(), O_RDONLY), 0);
  if (!process.standard_output.empty()) {
    dup2(open(process.standard_output.c_str(), O_WRONLY), 1);
  }
  dup2(open(err, O_WRONLY | O_CREAT | O_TRUNC, 0600), 2);
  execve(argv[0], argv, environment);
  _exit(127);
}

// Files of /proc have no size.
std::string read_text_of_proc(pid_t pid) {
  std::ifstream file(fmt::format("/proc/{}/status", pid));
  return {std::istreambuf_iterator<char>(file), {}};
}

}  // namespace

Running::Running(const Process& process) {
  static int count = 0;
  const std::string name = World::get().path(fmt::format("output-{}", ++count));
  out_ = name + ".out";
  err_ = name + ".err";
  Words arguments = {test::program().string()};
  arguments.insert(arguments.end(), process.arguments.begin(), process.arguments.end());
  // Passive waiting is what the program would otherwise start itself anew for.
  Words environment = {"OMP_NUM_THREADS=1", "OMP_WAIT_POLICY=passive"};
  for (const char* kept : {"PATH", "HOME", "LD_LIBRARY_PATH"}) {
    if (const char* value = getenv(kept)) environment.push_back(fmt::format("{}={}", kept, value));
  }
  environment.insert(environment.end(), process.environment.begin(), process.environment.end());
  if (!process.crash_at.empty()) environment.push_back("HALO_CRASH_AT=" + process.crash_at);
  std::vector<char*> argv, envp;
  for (std::string& word : arguments) argv.push_back(word.data());
  for (std::string& word : environment) envp.push_back(word.data());
  argv.push_back(nullptr);
  envp.push_back(nullptr);
  pid_ = fork();
  if (pid_ < 0) throw_error("cannot fork");
  if (pid_ == 0) become_halo(argv.data(), envp.data(), process, out_.c_str(), err_.c_str());
}

Running::~Running() {
  if (done_) return;
  kill(pid_, SIGKILL);
  waitpid(pid_, &status_, 0);
}

void Running::send(int signal) const {
  kill(pid_, signal);
}

void Running::wait_until_it_listens() {
  while (alive()) {
    std::istringstream status(read_text_of_proc(pid_));
    for (std::string line; std::getline(status, line);) {
      if (!line.starts_with("SigCgt:")) continue;
      if (std::stoull(line.substr(7), nullptr, 16) >> (SIGTERM - 1) & 1) return;
    }
    usleep(2000);
  }
}

bool Running::alive() {
  if (!done_ && waitpid(pid_, &status_, WNOHANG) == pid_) done_ = true;
  return !done_;
}

Outcome Running::wait() {
  if (!done_) waitpid(pid_, &status_, 0);
  done_ = true;
  Outcome outcome;
  if (WIFEXITED(status_)) outcome.code = WEXITSTATUS(status_);
  if (WIFSIGNALED(status_)) outcome.signal = WTERMSIG(status_);
  outcome.out = read_file(out_);
  outcome.err = read_file(err_);
  return outcome;
}

Outcome run_halo(const Process& process) {
  return Running(process).wait();
}

Outcome run_halo(const Words& arguments) {
  return run_halo(Process{arguments});
}

std::string output_of(const Words& arguments) {
  const Outcome outcome = run_halo(arguments);
  EXPECT_EQ(outcome.code, 0) << arguments.front() << ": " << outcome.err;
  return outcome.out;
}

}  // namespace halo::system_test
