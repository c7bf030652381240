// How commands end when they are told to, when nobody reads what they print, and what they say
// while they run.
#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/stat.h>
#include <unistd.h>

#include <chrono>
#include <thread>

#include "halo/base/files.h"
#include "tests/system/world.h"

namespace halo::system_test {
namespace {

using Clock = std::chrono::steady_clock;
using testing::HasSubstr;
using testing::StartsWith;

std::string text(const fs::path& path) {
  return path.string();
}

// Commands that run for minutes, with all that they write in `place`.
std::vector<Words> long_commands(const fs::path& place) {
  const World& world = World::get();
  const std::string teacher = text(world.teacher()), recipe = text(world.recipe()),
                    lines = text(place / "lines.jsonl");
  std::string many;
  for (int i = 0; i < 400; ++i) many += read_file(world.path("train.jsonl"));
  write_file(lines, many);
  write_file(place / "pretrain.toml", fmt::format("text = [{}]\n[tokenizer]\nvocab_size = 300\n",
                                                  json::serialize(json::value(lines))));
  return {
      {"data", "pack", lines, "--tokenizer", teacher, "--out", text(place / "packed")},
      {"data", "synthesize", teacher, "--out", text(place / "made"), "--tokens", "100000000"},
      {"generate", teacher, "It was", "--max-tokens", "100000000"},
      {"tokenize", teacher, "--jsonl", lines},
      {"eval", "--recipe", recipe, "--set", "eval.lengths=[8192]", "--set", "eval.haystacks=1000"},
      {"convert", recipe, "--run", text(place / "run"), "--set", "scale.haystacks=10000"},
      {"pretrain", text(place / "pretrain.toml"), "--run", text(place / "pretrained")},
      {"bench", "tokenize", teacher, lines},
      {"bench", "infer", teacher, "--contexts", "1000000"},
      {"plan", recipe},
  };
}

// Nothing under `place` has a temporary name.
void expect_no_temporary(const fs::path& place) {
  for (const auto& entry : fs::recursive_directory_iterator(place)) {
    EXPECT_FALSE(entry.path().string().ends_with(".tmp")) << entry.path();
  }
}

TEST(Stops, EveryCommandEndsSoonAndLeavesNothingHalfDone) {
  const fs::path place = World::get().folder("stops");
  for (const int signal : {SIGTERM, SIGINT}) {
    for (const Words& words : long_commands(place)) {
      for (const int milliseconds : {100, 900}) {
        SCOPED_TRACE(fmt::format("halo {} after {} ms", fmt::join(words, " "), milliseconds));
        Running running(Process{words});
        running.wait_until_it_listens();
        std::this_thread::sleep_for(std::chrono::milliseconds(milliseconds));
        const bool was_alive = running.alive();
        const Clock::time_point start = Clock::now();
        running.send(signal);
        const Outcome outcome = running.wait();
        const std::chrono::duration<double> time = Clock::now() - start;
        {
          SCOPED_TRACE(fmt::format("exit code {}: {}", outcome.code, outcome.err));
          expect_no_temporary(place);
        }
        if (was_alive && outcome.code != 0) {
          EXPECT_LT(time.count(), 1.5);  // a second, on a machine that does other things
          EXPECT_EQ(outcome.code, 3) << outcome.err;
          EXPECT_THAT(outcome.err, HasSubstr("stopped"));
          if (const fs::path status = place / "run" / "STATUS"; fs::exists(status))
            EXPECT_THAT(read_file(status), StartsWith("stopped "));
        }
        for (const char* made : {"packed", "made", "run", "pretrained"}) {
          fs::remove_all(place / made);
        }
      }
    }
  }
}

// Commands that print and end soon.
std::vector<Words> printing_commands() {
  const World& world = World::get();
  const std::string teacher = text(world.teacher());
  return {{"man"},
          {"--help"},
          {"--version"},
          {"plan", "--keys"},
          {"completion", "bash"},
          {"plan", text(world.recipe()), "--gflops", "10", "--memory", "10"},
          {"init", teacher, "--data", text(world.train_shards()), text(world.held_out())},
          {"inspect", teacher},
          {"tokenize", teacher, "--jsonl", text(world.path("train.jsonl"))},
          {"generate", teacher, "It was", "--max-tokens", "3"},
          {"data", "inspect", text(world.held_out())},
          {"eval", "--recipe", text(world.recipe()), "--json"},
          {"bench", "load", teacher},
          {"doctor"}};
}

TEST(Stops, AFullDiskIsAnErrorOfStandardOutput) {
  for (const Words& words : printing_commands()) {
    SCOPED_TRACE(fmt::format("{}", fmt::join(words, " ")));
    Process process{words};
    process.standard_output = "/dev/full";
    expect_error(run_halo(process), 1, {"standard output", "No space left on device"});
  }
}

// The reader of a pipe that has gone: `| head -1`.
TEST(Stops, AClosedPipeEndsACommandQuietly) {
  for (const Words& words : printing_commands()) {
    SCOPED_TRACE(fmt::format("{}", fmt::join(words, " ")));
    const fs::path pipe = World::get().folder("pipe") / "fifo";
    ASSERT_EQ(mkfifo(pipe.c_str(), 0600), 0);
    // Open for reading until the command has it for writing.
    const int reader = open(pipe.c_str(), O_RDONLY | O_NONBLOCK | O_CLOEXEC);
    Process process{words};
    process.standard_output = pipe;
    Running running(process);
    char byte;  // as long as nobody has the pipe open for writing, it is at its end
    while (read(reader, &byte, 1) == 0) std::this_thread::sleep_for(std::chrono::milliseconds(1));
    close(reader);
    const Outcome outcome = running.wait();
    EXPECT_EQ(outcome.signal, 0);
    EXPECT_EQ(outcome.code, 1);
    EXPECT_THAT(outcome.err, testing::Not(HasSubstr("halo: "))) << outcome.err;
  }
}

TEST(Stops, AloneItListsTheCommands) {
  const std::vector<std::pair<Words, std::string>> cases = {
      {{}, "align-attention"}, {{"data"}, "synthesize"}, {{"bench"}, "kernels"}};
  for (const auto& [words, command] : cases) {
    const Outcome outcome = run_halo(words);
    EXPECT_EQ(outcome.code, 2);
    EXPECT_EQ(outcome.out, "");
    EXPECT_THAT(outcome.err, HasSubstr("\n  " + command + " "));
  }
}

TEST(Stops, AMistypedCommandIsNamed) {
  expect_error(run_halo({"plam"}), 2, {"there is no command 'plam'; did you mean 'plan'?"});
  expect_error(run_halo({"data", "inspct", "x"}), 2, {"did you mean 'inspect'?"});
}

// convert says which stage it is at, and each stage how its gate was passed.
TEST(Stops, ConvertSaysWhereItIs) {
  const fs::path run = World::get().path("said");
  const Outcome outcome = run_halo(convert(run, false));
  ASSERT_EQ(outcome.code, 0) << outcome.err;
  size_t at = 0;
  const auto expect_next = [&](const std::string& part) {
    const size_t found = outcome.err.find(part, at);
    ASSERT_NE(found, std::string::npos) << part << " is not behind\n" << outcome.err.substr(0, at);
    at = found;
  };
  for (size_t i = 0; i < kStages.size(); ++i) {
    expect_next(fmt::format("stage {} of {}: {}\n", i + 1, kStages.size(), kStages[i]));
    expect_next("\n" + kStages[i] + ": ");
    expect_next(", must be ");
  }
  expect_next("evaluation\n");
  const Outcome again = run_halo(convert(run, true));
  EXPECT_THAT(again.err, HasSubstr("stage 1 of 8: transfer: done before\n"));
}

}  // namespace
}  // namespace halo::system_test
