// A small world for tests of the program itself: text from a grammar, a tokenizer trained on it,
// shards, a Qwen3 teacher with random weights and a recipe with every stage. The program runs as a
// process of its own, as users run it.
#pragma once

#include <filesystem>
#include <map>
#include <string>
#include <vector>

#include "halo/base/json.h"
#include "tests/testing.h"

namespace halo::system_test {

namespace fs = std::filesystem;
using Words = std::vector<std::string>;

struct Outcome {
  int code = -1;   // exit code; -1 where a signal ended it
  int signal = 0;  // that signal
  std::string out, err;
};

struct Process {
  Words arguments;
  std::string crash_at;           // HALO_CRASH_AT
  int64_t max_file_bytes = 0;     // of any file it writes; 0: no limit. A disk that fills up.
  fs::path directory = {};        // where it runs; empty: where the test does
  fs::path standard_output = {};  // a file that is there, /dev/full; empty: Outcome::out
  fs::path standard_input = {};   // empty: that of the test
  int64_t max_memory_bytes = 0;   // of its address space; 0: no limit
  Words environment = {};         // further variables, "NAME=value"
};

// A running `halo`.
class Running {
 public:
  explicit Running(const Process& process);
  ~Running();  // kills it if nobody waited
  Running(const Running&) = delete;
  void send(int signal) const;
  // Returns once it would not die of SIGTERM any more, or has ended.
  void wait_until_it_listens();
  bool alive();
  Outcome wait();

 private:
  int pid_;
  int status_ = 0;
  bool done_ = false;
  fs::path out_, err_;
};

Outcome run_halo(const Words& arguments);
Outcome run_halo(const Process& process);
// Standard output of a command that must succeed.
std::string output_of(const Words& arguments);

// Made once a program, gone at its end.
class World {
 public:
  static const World& get();

  fs::path path(const std::string& name) const { return root_ / name; }
  fs::path teacher() const { return path("teacher"); }
  fs::path recipe() const { return path("recipe.toml"); }
  fs::path train_shards() const { return path("train"); }
  fs::path held_out() const { return path("held-out"); }
  // Where a test may write; a new one at each call.
  fs::path folder(const std::string& name) const;

  // The run folder of a conversion that nothing disturbed.
  const fs::path& reference() const;

  World(const World&) = delete;

 private:
  World();
  void make_text() const;
  void make_teacher() const;
  void make_recipe() const;

  test::Folder root_;
};

// The stages of the world's recipe, in order: the names of their folders.
extern const Words kStages;

Process convert(const fs::path& run, bool resume, const std::string& crash_at = "");

// A copy of the world's teacher with its weights in two shards; returns `to`.
fs::path sharded_teacher(const fs::path& to);

// Path -> content of everything in a run folder that must not depend on time or interruptions.
std::map<std::string, std::string> record(const fs::path& run);
void expect_same_record(const fs::path& run, const fs::path& reference);

// The stage that RUN/STATUS names.
std::string running_stage(const fs::path& run);

// `outcome` is the one-sentence error `code` that contains all of `parts`.
void expect_error(const Outcome& outcome, int code, const Words& parts);

}  // namespace halo::system_test
