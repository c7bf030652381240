// Ranks that are processes, and are stopped, told to stop or slow: over shared memory, and over
// words alone, which is what ranks on GPUs have.
#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/stat.h>
#include <unistd.h>

#include <array>
#include <chrono>
#include <filesystem>
#include <thread>

#include "c10/util/Exception.h"
#include "halo/base/files.h"
#include "halo/runtime/rank_place.h"
#include "halo/runtime/rank_words.h"
#include "halo/runtime/ranks.h"
#include "tests/processes.h"
#include "tests/testing.h"

namespace halo {
namespace {

using test::RankProcesses;
using testing::Each;
using testing::HasSubstr;

constexpr double kLimit = 1;  // second

// Two ranks over words, or over shared memory.
enum class Over { kMemory, kWords };
constexpr Over kBoth[] = {Over::kMemory, Over::kWords};

// What both forms have in common.
struct Talk {
  std::function<void()> wait;                                // for all, as long as they live
  std::function<std::vector<std::string>(std::string)> say;  // all within the limit
};

// `work` on two processes; logs of calls in `folder`/calls.
class TwoRanks {
 public:
  TwoRanks(Over over, const test::Folder& folder,
           const std::function<void(int64_t rank, const Talk&)>& work)
      : ranks_(2, folder / "said", [&, over](int64_t rank) {
          if (over == Over::kWords) {
            const RankPlace place = *rank_place();
            RankWords words(RankStore(place.address, place.port, /*serves=*/false, "halo/0/"),
                            place, kLimit);
            try {
              work(rank, {[&] { words.exchange("", std::nullopt); },
                          [&](const std::string& text) { return words.exchange(text, kLimit); }});
            } catch (const Stopped&) {
              words.end(3);
              throw;
            } catch (const Error&) {
              words.end(1);
              throw;
            }
            return;
          }
          RunRecipe run;
          run.rank_seconds = kLimit;
          run_ranks(run, [&](Communicator& ranks) {
            ranks.set_log_folder(folder / "calls");
            work(rank, {[&] { ranks.wait(); },
                        [&](const std::string& text) { return ranks.exchange(text); }});
          });
        }) {}

  RankProcesses* operator->() { return &ranks_; }

 private:
  RankProcesses ranks_;
};

void sleep_for_seconds(double seconds) {
  std::this_thread::sleep_for(std::chrono::duration<double>(seconds));
}

TEST(RankProcesses, TellEachOther) {
  for (const Over over : kBoth) {
    const test::Folder folder;
    TwoRanks ranks(over, folder, [](int64_t rank, const Talk& talk) {
      for (int turn = 0; turn < 10; ++turn) {
        const auto all = talk.say(fmt::format("{} in turn {}", rank, turn));
        if (all !=
            std::vector{fmt::format("0 in turn {}", turn), fmt::format("1 in turn {}", turn)})
          throw_error("turn {}: {}, {}", turn, all[0], all[1]);
        talk.wait();
      }
    });
    EXPECT_THAT(ranks->wait_all(), Each(0)) << ranks->said();
  }
}

// Its work takes longer than the limit, and it lives.
TEST(RankProcesses, ThatWorkForLongAreNotLost) {
  for (const Over over : kBoth) {
    const test::Folder folder;
    TwoRanks ranks(over, folder, [](int64_t rank, const Talk& talk) {
      if (rank == 0) sleep_for_seconds(1.5 * kLimit);
      talk.wait();
    });
    EXPECT_THAT(ranks->wait_all(), Each(0)) << ranks->said();
  }
}

TEST(RankProcesses, ThatAreStoppedAreLostWhereverTheOthersWait) {
  for (const Over over : kBoth) {
    for (const int64_t victim : {0, 1}) {
      for (const bool in_step : {false, true}) {
        SCOPED_TRACE(fmt::format("over {}, victim {}, in a step: {}", static_cast<int>(over),
                                 victim, in_step));
        const test::Folder folder;
        TwoRanks ranks(over, folder, [&](int64_t rank, const Talk& talk) {
          talk.wait();
          if (rank == victim) raise(SIGSTOP);
          in_step ? static_cast<void>(talk.say("")) : talk.wait();
        });
        const std::vector<int> codes = ranks->wait_all(victim);
        EXPECT_EQ(codes[1 - victim], 5) << ranks->said();
        EXPECT_EQ(codes[victim], -SIGKILL);
        const char* why =
            in_step ? "did not answer for 1 sec" : "has shown no sign of life for 1 sec";
        EXPECT_THAT(ranks->said(), HasSubstr(fmt::format("rank {} {}", victim, why)));
        if (over == Over::kMemory) {
          EXPECT_THAT(read_file(folder / fmt::format("calls/rank-{}.jsonl", 1 - victim)),
                      HasSubstr("\"end\":null"));
        }
      }
    }
  }
}

TEST(RankProcesses, ThatDieAreLost) {
  for (const Over over : kBoth) {
    const test::Folder folder;
    TwoRanks ranks(over, folder, [](int64_t rank, const Talk& talk) {
      talk.wait();
      if (rank == 1) raise(SIGKILL);
      talk.wait();
    });
    EXPECT_EQ(ranks->wait(0), 5);  // nobody has asked for the other's exit code yet
    EXPECT_EQ(ranks->wait(1), -SIGKILL);
    EXPECT_THAT(read_file(ranks->log(0)), HasSubstr("has died; the run goes on from its newest"));
  }
}

// Every socket of this process is another file from now on, which closes those that it alone has.
// (A shutdown would be felt by the process that it is a child of.)
void lose_network() {
  std::vector<int> sockets;
  for (const auto& entry : std::filesystem::directory_iterator("/proc/self/fd")) {
    struct stat status {};
    const int file = std::stoi(entry.path().filename());
    if (fstat(file, &status) == 0 && S_ISSOCK(status.st_mode)) sockets.push_back(file);
  }
  const int nothing = open("/dev/null", O_RDWR);
  if (sockets.empty()) throw_error("there is no socket to lose");
  for (const int file : sockets) dup2(nothing, file);
}

TEST(RankProcesses, ThatLoseTheirNetworkAreLost) {
  for (const int64_t victim : {0, 1}) {
    for (const bool in_step : {false, true}) {
      SCOPED_TRACE(fmt::format("victim {}, in a step: {}", victim, in_step));
      const test::Folder folder;
      TwoRanks ranks(Over::kWords, folder, [&](int64_t rank, const Talk& talk) {
        talk.wait();
        if (rank == victim) {
          lose_network();
          sleep_for_seconds(3 * kLimit);  // works, and has nothing to say meanwhile
        }
        in_step ? static_cast<void>(talk.say("")) : talk.wait();
      });
      EXPECT_THAT(ranks->wait_all(), Each(5)) << ranks->said();
      EXPECT_THAT(read_file(ranks->log(victim)), HasSubstr("the ranks' store is gone"));
      const char* why =
          in_step ? "did not answer for 1 sec" : "has shown no sign of life for 1 sec";
      EXPECT_THAT(read_file(ranks->log(1 - victim)),
                  HasSubstr(fmt::format("rank {} {}", victim, why)));
    }
  }
}

TEST(RankProcesses, WhoseGpuFailsAreLost) {
  const test::Folder folder;
  TwoRanks ranks(Over::kMemory, folder, [](int64_t rank, const Talk& talk) {
    talk.wait();
    if (rank == 1) {
      throw c10::AcceleratorError({__func__, __FILE__, __LINE__}, 700,
                                  "CUDA error: an illegal memory access was encountered\nmore");
    }
    talk.wait();
  });
  EXPECT_THAT(ranks->wait_all(), Each(5)) << ranks->said();
  EXPECT_THAT(read_file(ranks->log(1)), HasSubstr("its GPU failed: CUDA error: an illegal memory"));
  EXPECT_TRUE(std::filesystem::exists(folder / "calls/rank-1.jsonl"));
}

// A signal to one of them ends both: one that waits, and one that works.
TEST(RankProcesses, AreToldToStopTogether) {
  int turn = 0;
  for (const Over over : kBoth) {
    for (const int64_t told : {0, 1}) {
      for (const bool other_works : {false, true}) {
        const int signal = std::array{SIGTERM, SIGUSR1, SIGINT}[turn++ % 3];
        SCOPED_TRACE(fmt::format("over {}, rank {} told by {}, the other works: {}",
                                 static_cast<int>(over), told, signal, other_works));
        const test::Folder folder;
        TwoRanks ranks(over, folder, [&](int64_t rank, const Talk& talk) {
          talk.wait();
          if (rank == told) raise(signal);
          if (rank == told || other_works) sleep_for_seconds(60);
          talk.wait();
        });
        EXPECT_THAT(ranks->wait_all(), Each(3)) << ranks->said();
        EXPECT_THAT(read_file(ranks->log(1 - told)), HasSubstr("stop"));
      }
    }
  }
}

// Each gets a signal of its own beside what the other tells it: that is no second one, which kills.
TEST(RankProcesses, MayAllBeTold) {
  for (const Over over : kBoth) {
    const test::Folder folder;
    TwoRanks ranks(over, folder, [&](int64_t rank, const Talk& talk) {
      // It has state to save, and is slow to do so.
      const StopLater later("saves");
      talk.wait();
      if (rank == 0) throw Stopped("saved");
      while (!stop_requested()) sleep_for_seconds(0.01);
      raise(SIGTERM);
      sleep_for_seconds(0.1);
      throw Stopped("saved");
    });
    EXPECT_THAT(ranks->wait_all(), Each(3)) << ranks->said();
  }
}

TEST(RankProcesses, EndWithTheErrorOfOne) {
  for (const Over over : kBoth) {
    const test::Folder folder;
    TwoRanks ranks(over, folder, [&](int64_t rank, const Talk& talk) {
      talk.wait();
      if (rank == 1) throw_error("one has no disk");
      talk.wait();
    });
    EXPECT_THAT(ranks->wait_all(), Each(1)) << ranks->said();
    EXPECT_EQ(read_file(ranks->log(0)), "");
    EXPECT_THAT(read_file(ranks->log(1)), HasSubstr("one has no disk\n"));
  }
}

}  // namespace
}  // namespace halo
