// Faults of ranks that are processes, at random moments of a whole conversion and one by one:
// whatever happens to a rank, all of them end soon and say why, and the run goes on to the bits of
// one that nothing disturbed.
//   HALO_RANK_FAULTS=1000 build/tests/system_test --gtest_filter='RankFaults.*'
// The ranks are children of this process, made by fork, which itself never computes anything.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <unistd.h>

#include <array>
#include <chrono>
#include <iostream>
#include <thread>

#include "halo/base/files.h"
#include "halo/base/random.h"
#include "halo/pipeline/convert.h"
#include "halo/runtime/ranks.h"
#include "tests/asked.h"
#include "tests/processes.h"
#include "tests/system/tiny_world.h"

namespace halo::system_test {
namespace {

using testing::AnyOf;
using testing::Each;
using testing::ElementsAre;
using testing::HasSubstr;

constexpr int64_t kRanks = 2;
constexpr double kPatient = 120, kImpatient = 1;  // seconds

void sleep_for_seconds(double seconds) {
  std::this_thread::sleep_for(std::chrono::duration<double>(seconds));
}

// Two rows a step, one for each rank: of several, run.shard = "full" would add up the gradients in
// another order than the others (docs/decisions/ranks.md). What the student writes is half as long.
Words of_two_rows() {
  Words set = {"on_policy.tokens=288", "on_policy.checkpoint_every=1"};
  for (const auto& [stage, tokens] : {std::pair("align", 576), std::pair("align_attention", 192),
                                      std::pair("distill", 576), std::pair("finetune", 192)}) {
    set.push_back(fmt::format("{}.tokens_per_step=192", stage));
    set.push_back(fmt::format("{}.tokens={}", stage, tokens));
  }
  return set;
}

class RankFaults : public testing::Test {
 protected:
  using Change = std::function<void(Recipe&, int64_t rank)>;

  // The conversion on processes, which goes on with what is in `run`.
  class Conversion {
   public:
    Conversion(const Recipe& recipe, const fs::path& run, const fs::path& logs,
               const Change& change) {
      EXPECT_EQ(pipe(joined_.data()), 0);
      processes_.emplace(kRanks, logs, [&](int64_t rank) {
        close(joined_[0]);
        // With SIGXFSZ ignored a write past a limit fails as one to a full disk does.
        signal(SIGXFSZ, SIG_IGN);
        Recipe own = recipe;
        if (change) change(own, rank);
        run_ranks(own.run, [&](Communicator& ranks) {
          if (write(joined_[1], "x", 1) != 1) throw_error("cannot say that a rank is here");
          convert(own, {run, /*resume=*/true, "halo convert"}, ranks);
        });
      });
      close(joined_[1]);
    }
    ~Conversion() { close(joined_[0]); }
    Conversion(const Conversion&) = delete;

    test::RankProcesses* operator->() { return &*processes_; }
    // Returns once all ranks have met, or have ended.
    void wait_until_joined() {
      char byte;
      for (int64_t i = 0; i < kRanks && read(joined_[0], &byte, 1) == 1;) ++i;
    }

   private:
    std::array<int, 2> joined_{};
    std::optional<test::RankProcesses> processes_;
  };

  RankFaults() {
    recipe_.run.rank_seconds = kPatient;
    recipe_.run.shard = Shard::kOptimizer;
  }

  Conversion start(const fs::path& run, const Change& change = {}) {
    return Conversion(recipe_, run, world_.path("said"), change);
  }

  // Goes on to the end, where everything must be that of a run that nothing disturbed.
  void expect_same_in_the_end(const fs::path& run) {
    Conversion last = start(run);
    EXPECT_THAT(last->wait_all(), Each(0)) << last->said();
    expect_same_record(run, reference());
    EXPECT_THAT(read_file(run / "STATUS"), testing::StartsWith("done"));
  }

  const fs::path& reference() {
    if (!reference_.empty()) return reference_;
    reference_ = world_.path("reference");
    Conversion whole = start(reference_);
    whole.wait_until_joined();
    const auto begin = std::chrono::steady_clock::now();
    EXPECT_EQ(whole->wait(1), 0) << whole->said();
    seconds_ = std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
    EXPECT_EQ(whole->wait(0), 0) << whole->said();
    return reference_;
  }

  // Waits until the stage has trained a step.
  static void wait_for_step(const fs::path& run, const std::string& stage) {
    const fs::path metrics = run / stage / "metrics.jsonl";
    for (int i = 0; i < 60'000; ++i) {
      std::error_code absent;
      if (const auto bytes = fs::file_size(metrics, absent); !absent && bytes > 0) return;
      sleep_for_seconds(0.001);
    }
    ADD_FAILURE() << metrics << " did not come";
  }

  TinyWorld world_;
  Recipe recipe_ = world_.recipe(of_two_rows());
  fs::path reference_;
  double seconds_ = 0;  // of a whole run, from when the ranks have met to where one is left
};

struct Outcomes {
  int64_t lost = 0, stopped = 0, late = 0;  // late: the rank had nothing to do any more
};

TEST_F(RankFaults, AtRandomMomentsCostNoBit) {
  const int64_t number = test::asked("HALO_RANK_FAULTS", 24);
  reference();
  ASSERT_FALSE(HasFailure());
  Outcomes outcomes;
  int64_t faults = 0, runs = 0;
  for (; faults < number && !HasFailure(); ++runs) {
    const Random random(1, "rank faults", static_cast<uint64_t>(runs));
    uint64_t n = 0;
    const fs::path run = world_.path(fmt::format("run-{}", runs));
    for (int64_t i = random.below(n++, 3); i >= 0; --i, ++faults) {
      constexpr int kSignals[] = {SIGKILL, SIGSTOP, SIGTERM, SIGUSR1};
      const int signal = kSignals[random.below(n++, std::size(kSignals))];
      const int64_t victim = random.below(n++, kRanks);
      const bool all = (signal == SIGTERM || signal == SIGUSR1) && random.below(n++, 2) == 0;
      SCOPED_TRACE(fmt::format("run {}, fault {}: signal {} to {}", runs, faults, signal,
                               all ? "all" : fmt::format("rank {}", victim)));
      recipe_.run.rank_seconds = signal == SIGSTOP ? kImpatient : kPatient;
      recipe_.run.shard = kShards[random.below(n++, std::size(kShards))].value;
      recipe_.run.async_checkpoints = random.below(n++, 2) == 0;
      fs::remove(run / "STATUS");
      Conversion conversion = start(run);
      conversion.wait_until_joined();
      sleep_for_seconds(random.uniform(n++) * seconds_);
      for (int64_t rank = 0; rank < kRanks; ++rank) {
        if (all || rank == victim) conversion->send(rank, signal);
      }
      const bool is_stop = signal == SIGTERM || signal == SIGUSR1;
      const std::vector<int> codes =
          signal == SIGSTOP ? conversion->wait_all(victim) : conversion->wait_all();
      const int other = codes[1 - victim];
      if (is_stop) {
        EXPECT_THAT(codes, Each(AnyOf(0, 3))) << conversion->said();
        ++(codes[0] == 3 ? outcomes.stopped : outcomes.late);
      } else {
        EXPECT_THAT(other, AnyOf(0, 5)) << conversion->said();
        EXPECT_THAT(codes[victim], AnyOf(0, -SIGKILL)) << conversion->said();
        ++(other == 5 ? outcomes.lost : outcomes.late);
      }
      if (other == 5) {
        EXPECT_TRUE(fs::exists(run / fmt::format("ranks/rank-{}.jsonl", 1 - victim)));
      }
      if (const fs::path status = run / "STATUS"; fs::exists(status) && is_stop) {
        EXPECT_THAT(read_file(status),
                    AnyOf(testing::StartsWith("stopped "), testing::StartsWith("done")))
            << conversion->said();
      }
    }
    recipe_.run.rank_seconds = kPatient;
    expect_same_in_the_end(run);
    fs::remove_all(run);
  }
  std::cout << fmt::format(
      "{} faults in {} runs of {:.2f} s: {} ended all with 5, {} with 3, {} came when there was "
      "nothing left to do\n",
      faults, runs, seconds_, outcomes.lost, outcomes.stopped, outcomes.late);
  if (number >= 20) {
    EXPECT_GT(outcomes.lost, 0);
    EXPECT_GT(outcomes.stopped, 0);
  }
}

// Stopped for a moment again and again: slower than the other, and not dead.
TEST_F(RankFaults, ASlowOneCostsNothingButTime) {
  for (const int64_t slow : {0, 1}) {
    const fs::path run = world_.path(fmt::format("slow-{}", slow));
    Conversion conversion = start(run);
    conversion.wait_until_joined();
    for (int i = 0; i < 20; ++i) {
      conversion->send(slow, SIGSTOP);
      sleep_for_seconds(0.03);
      conversion->send(slow, SIGCONT);
      sleep_for_seconds(0.01);
    }
    EXPECT_THAT(conversion->wait_all(), Each(0)) << conversion->said();
    expect_same_in_the_end(run);
  }
}

// A rank of a sharded run has files to write, and the disk under it is full.
TEST_F(RankFaults, AWriteThatFailsEndsAllWithOneError) {
  reference();
  for (const int64_t victim : {0, 1}) {
    const fs::path run = world_.path(fmt::format("full-{}", victim));
    Conversion conversion = start(run);
    wait_for_step(run, "align");
    const rlimit limit{2000, 2000};
    ASSERT_EQ(prlimit(conversion->process(victim), RLIMIT_FSIZE, &limit, nullptr), 0);
    EXPECT_THAT(conversion->wait_all(), Each(1)) << conversion->said();
    EXPECT_THAT(read_file(conversion->log(victim)), HasSubstr("File too large"));
    EXPECT_THAT(read_file(conversion->log(1 - victim)), testing::Not(HasSubstr("halo: ")));
    expect_same_in_the_end(run);
  }
}

// Its copy of the shards is damaged, or is another one.
TEST_F(RankFaults, WhatOneRankReadsIsCheckedBeforeItTrains) {
  reference();
  const auto shard = [&](const std::string& name) {
    return fs::directory_iterator(world_.path(name))->path();
  };
  fs::copy(world_.path("train"), world_.path("damaged"));
  std::string bytes = read_file(shard("damaged"));
  bytes[bytes.size() / 2] ^= 1;
  write_file(shard("damaged"), bytes);
  for (const auto& [data, why] : {std::pair("damaged", "damaged: the contents do not match"),
                                  std::pair("held-out", "other data")}) {
    const fs::path run = world_.path(fmt::format("reads-{}", data));
    const std::string shards = world_.path(data).string();
    Conversion conversion = start(run, [&](Recipe& recipe, int64_t rank) {
      if (rank == 1) recipe.data.shards = {shards};
    });
    EXPECT_THAT(conversion->wait_all(), ElementsAre(1, 1)) << conversion->said();
    EXPECT_THAT(read_file(conversion->log(1)), HasSubstr(why));
    EXPECT_FALSE(fs::exists(run / "align/step-0"));
    expect_same_in_the_end(run);
  }
}

}  // namespace
}  // namespace halo::system_test
