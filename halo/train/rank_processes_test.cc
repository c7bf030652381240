// The training loop on ranks that are processes: one has a bad batch, is slow, reads other data.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <chrono>
#include <limits>
#include <thread>

#include "halo/runtime/ranks.h"
#include "halo/train/job_testing.h"
#include "tests/processes.h"

namespace halo {
namespace {

using test::fingerprint;
using test::RankProcesses;
using test::read_lines;
using test::ToyJob;
using testing::Each;
using testing::HasSubstr;

namespace fs = std::filesystem;

constexpr double kNaN = std::numeric_limits<double>::quiet_NaN();

class RankProcessesTest : public ::testing::TestWithParam<Shard> {
 protected:
  using Change = std::function<void(ToyJob&, int64_t rank)>;

  // Exit codes of two processes that train in `folder`.
  std::vector<int> train_in(const fs::path& folder, const Change& change) {
    RankProcesses processes(2, folder / "said", [&](int64_t) {
      run_ranks({}, [&](Communicator& ranks) {
        ToyJob toy(folder, at::kFloat, {&ranks, GetParam()});
        change(toy, ranks.rank());
        train(toy.job);
      });
    });
    const std::vector<int> codes = processes.wait_all();
    said_ = processes.said();
    return codes;
  }

  test::Folder folder_;
  std::string said_;
};

TEST_P(RankProcessesTest, ABadBatchOfOneIsLeftOutByAll) {
  const auto train_with = [&](const std::string& name, int64_t bad) {
    const fs::path run = folder_ / name;
    EXPECT_THAT(train_in(run,
                         [&](ToyJob& toy, int64_t rank) {
                           if (rank == bad) toy.gradient_factor[3] = kNaN;
                         }),
                Each(0))
        << said_;
    for (const json::object& line : read_lines(run / "metrics.jsonl")) {
      EXPECT_EQ(line.at("skipped").as_bool(), bad >= 0 && line.at("step") == 3);
    }
    return fingerprint(run, 8);
  };
  const std::string one = train_with("one", 0), other = train_with("other", 1);
  EXPECT_EQ(one, other) << "whichever has it, the step leaves nothing";
  EXPECT_NE(one, train_with("none", -1));
}

TEST_P(RankProcessesTest, ASlowOneIsWaitedFor) {
  const auto train_with = [&](const std::string& name, int64_t slow) {
    const fs::path run = folder_ / name;
    const auto change = [&](ToyJob& toy, int64_t rank) {
      if (rank != slow) return;
      const auto good = toy.job.forward_backward;
      toy.job.forward_backward = [good](const TrainBatch& batch, int64_t count) {
        std::this_thread::sleep_for(std::chrono::milliseconds(60));
        return good(batch, count);
      };
    };
    EXPECT_THAT(train_in(run, change), Each(0)) << said_;
    return fingerprint(run, 8);
  };
  const std::string none = train_with("none", -1);
  EXPECT_EQ(train_with("first", 0), none);
  EXPECT_EQ(train_with("second", 1), none);
}

TEST_P(RankProcessesTest, OneWithOtherDataIsRefused) {
  EXPECT_THAT(train_in(folder_ / "run",
                       [](ToyJob& toy, int64_t rank) {
                         if (rank == 1) toy.job.data_id = "yesterday's";
                       }),
              Each(1));
  EXPECT_THAT(said_,
              HasSubstr("rank 1: toy: has other data or another recipe than the first rank"));
  EXPECT_FALSE(fs::exists(folder_ / "run/step-0"));
}

INSTANTIATE_TEST_SUITE_P(, RankProcessesTest,
                         testing::Values(Shard::kNone, Shard::kOptimizer, Shard::kFull),
                         [](const auto& info) {
                           return std::string(word_of<Shard>(kShards, info.param));
                         });

}  // namespace
}  // namespace halo
