#include "halo/runtime/ranks.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <thread>

#include "ATen/ATen.h"
#include "halo/base/files.h"
#include "halo/runtime/rank_place.h"
#include "halo/runtime/rank_store.h"
#include "halo/runtime/ranks_in_memory.h"
#include "tests/testing.h"

namespace halo {
namespace {

using test::error_of;
using testing::ElementsAre;
using testing::HasSubstr;

constexpr double kPatient = 60;

TEST(Ranks, AreToldWhatEachOfThemSays) {
  run_threads(3, kPatient, [](Communicator& ranks) {
    for (int turn = 0; turn < 20; ++turn) {
      const std::vector<std::string> all =
          ranks.exchange(std::string(turn * 1000, 'x') + fmt::format("{}", ranks.rank()));
      ASSERT_EQ(all.size(), 3u);
      for (int r = 0; r < 3; ++r) EXPECT_EQ(all[r].back(), '0' + r);
    }
    EXPECT_EQ(ranks.broadcast(ranks.is_first() ? "go" : "ignored"), "go");
    EXPECT_THAT(ranks.sum({1.0, static_cast<double>(ranks.rank())}), ElementsAre(3, 3));
    ranks.wait();
  });
}

// More than a slot holds, and not a multiple of it.
TEST(Ranks, SumInOrderAndGather) {
  for (const int64_t n : {1, 2, 5, 8}) {
    const int64_t part = 1'200'064 / n;
    std::vector<at::Tensor> values;
    for (int64_t r = 0; r < n; ++r) {
      at::Generator generator = at::make_generator<at::CPUGeneratorImpl>(r);
      values.push_back(at::empty({part * n}).normal_(0, 1, generator));
    }
    at::Tensor want = values[0].clone();
    for (int64_t r = 1; r < n; ++r) want += values[r];
    run_threads(n, kPatient, [&](Communicator& ranks) {
      const at::Tensor flat = values[ranks.rank()].clone();
      ranks.reduce_scatter(flat);
      ranks.all_gather(flat);
      EXPECT_TRUE(at::equal(flat, want)) << n << " ranks";
      const at::Tensor own = at::full({2}, 1.0 + ranks.rank(), at::kDouble);
      EXPECT_EQ(ranks.sum(own)[1].item<double>(), double(n * (n + 1)) / 2);
    });
  }
}

// More than a slot holds, of any type and shape.
TEST(Ranks, OfAGroupGiveEachOfThemItsOwn) {
  for (const auto& [n, group] : {std::pair{4, 4}, {4, 2}, {6, 3}, {3, 1}}) {
    const auto part = [](int64_t from, int64_t to) {
      return at::arange(700'001, at::kLong).add(10 * from + to).view({1, 700'001});
    };
    run_threads(n, kPatient, [&, group = group](Communicator& ranks) {
      const int64_t first = ranks.rank() / group * group;
      std::vector<at::Tensor> mine, want;
      for (int64_t p = first; p < first + group; ++p) {
        mine.push_back(part(ranks.rank(), p));
        want.push_back(part(p, ranks.rank()));
      }
      EXPECT_TRUE(at::equal(ranks.all_to_all(at::stack(mine), group), at::stack(want)));
    });
  }
  const at::Tensor alone = at::ones({1, 3});
  EXPECT_TRUE(at::equal(one_rank().all_to_all(alone, 1), alone));
}

TEST(Ranks, HaveEqualPartsOfATensor) {
  run_threads(4, kPatient, [](Communicator& ranks) {
    EXPECT_EQ(ranks.part(1000), (Range{250 * ranks.rank(), 250}));
  });
}

TEST(Ranks, EndTogetherWithTheErrorOfOne) {
  std::atomic<int> ended = 0;
  const std::string text = error_of([&] {
    run_threads(4, kPatient, [&](Communicator& ranks) {
      try {
        if (ranks.rank() == 2) throw_error("two has no disk");
        ranks.wait();
      } catch (const GroupEnded& error) {
        EXPECT_EQ(error.code(), 1);
        ++ended;
        throw;
      }
    });
  });
  EXPECT_EQ(text, "two has no disk");
  EXPECT_EQ(ended, 3);
}

TEST(Ranks, OneThatDoesNotAnswerIsLostAndTheCallsAreWrittenDown) {
  const test::Folder folder;
  try {
    run_threads(3, 0.3, [&](Communicator& ranks) {
      ranks.set_log_folder(folder / "ranks");
      ranks.exchange("all are here");
      if (ranks.rank() == 1) std::this_thread::sleep_for(std::chrono::seconds(2));
      ranks.exchange("");
    });
    FAIL() << "no error";
  } catch (const RankLost& error) {
    EXPECT_THAT(error.what(), HasSubstr("rank 1 did not answer for 0.3 seconds"));
  }
  const std::string log = read_file(folder / "ranks/rank-0.jsonl");
  EXPECT_EQ(std::count(log.begin(), log.end(), '\n'), 2);
  EXPECT_THAT(log, HasSubstr("\"end\":null"));
}

TEST(Ranks, TheFirstMayTakeItsTimeWhereTheOthersHaveNothingToDo) {
  run_threads(2, 0.1, [](Communicator& ranks) {
    if (ranks.is_first()) std::this_thread::sleep_for(std::chrono::milliseconds(500));
    EXPECT_EQ(ranks.broadcast("done"), "done");
  });
}

TEST(Ranks, TheFirstWaitsForTheOthersNoLongerThanTheLimit) {
  EXPECT_THROW(run_threads(2, 0.1,
                           [](Communicator& ranks) {
                             if (!ranks.is_first())
                               std::this_thread::sleep_for(std::chrono::milliseconds(500));
                             ranks.broadcast("done");
                           }),
               RankLost);
}

TEST(Ranks, RunAloneOrAsTheRecipeSays) {
  RunRecipe run;
  int64_t size = 0;
  run_ranks(run, [&](Communicator& ranks) { size = ranks.size(); });
  EXPECT_EQ(size, 1);
  run.ranks = 3;
  std::atomic<int> calls = 0;
  run_ranks(run, [&](Communicator& ranks) {
    EXPECT_EQ(ranks.size(), 3);
    ++calls;
  });
  EXPECT_EQ(calls, 3);
  run.device = at::kCUDA;
  EXPECT_THAT(error_of([&] { run_ranks(run, [](Communicator&) {}); }),
              HasSubstr("halo launch -n 3"));
}

using Variables = std::vector<std::pair<const char*, const char*>>;

// Sets variables of the environment as long as it lives.
class Environment {
 public:
  explicit Environment(const Variables& variables) : variables_(variables) {
    for (const auto& [name, value] : variables_) setenv(name, value, 1);
  }
  ~Environment() {
    for (const auto& [name, value] : variables_) unsetenv(name);
  }
  Environment(const Environment&) = delete;

 private:
  const Variables variables_;
};

TEST(RankPlace, IsWhatTorchrunSays) {
  EXPECT_FALSE(rank_place());
  const Environment environment(Variables{{"RANK", "5"},
                                          {"WORLD_SIZE", "8"},
                                          {"LOCAL_RANK", "1"},
                                          {"LOCAL_WORLD_SIZE", "4"},
                                          {"MASTER_ADDR", "node0"},
                                          {"MASTER_PORT", "29500"}});
  const RankPlace place = *rank_place();
  EXPECT_EQ(place.rank, 5);
  EXPECT_EQ(place.size, 8);
  EXPECT_EQ(place.local_rank, 1);
  EXPECT_EQ(place.address, "node0");
  EXPECT_EQ(place.port, 29500);
  EXPECT_FALSE(place.is_served);
  RunRecipe run;
  EXPECT_EQ(num_ranks(run), 8);
  run.ranks = 4;
  EXPECT_THAT(error_of([&] { num_ranks(run); }), HasSubstr("but 8 ranks were started"));
}

TEST(RankPlace, IsWhatSlurmSays) {
  const Environment environment(Variables{{"SLURM_STEP_ID", "0"},
                                          {"SLURM_STEP_NUM_TASKS", "8"},
                                          {"SLURM_PROCID", "3"},
                                          {"SLURM_LOCALID", "3"},
                                          {"SLURM_STEP_TASKS_PER_NODE", "4(x2)"},
                                          {"SLURM_STEP_NODELIST", "gpu[03-04]"},
                                          {"SLURM_JOB_ID", "123456"}});
  const RankPlace place = *rank_place();
  EXPECT_EQ(place.rank, 3);
  EXPECT_EQ(place.local_size, 4);
  EXPECT_EQ(place.address, "gpu03");
  EXPECT_EQ(place.port, 23456);
  EXPECT_EQ(first_host("gpu[03-05,9],cpu1"), "gpu03");
  EXPECT_EQ(first_host("gpu[7]"), "gpu7");
  EXPECT_EQ(first_host("a1,a2"), "a1");
  EXPECT_EQ(first_host("alone"), "alone");
}

TEST(RankPlace, RefusesWhatIsNoRank) {
  {
    const Environment environment(Variables{{"RANK", "1"}});
    EXPECT_THAT(error_of([] { rank_place(); }), HasSubstr("has RANK and no WORLD_SIZE"));
  }
  {
    const Environment environment(
        Variables{{"RANK", "2"}, {"WORLD_SIZE", "2"}, {"MASTER_PORT", "1"}});
    EXPECT_THAT(error_of([] { rank_place(); }), HasSubstr("rank 2 of 2"));
  }
  const Environment environment(Variables{{"RANK", "one"}, {"WORLD_SIZE", "2"}});
  EXPECT_THAT(error_of([] { rank_place(); }), HasSubstr("RANK = 'one'"));
}

TEST(RankStore, KeepsWordsByTheirKeys) {
  RankStore server;
  RankStore client("127.0.0.1", server.port(), false, "run/");
  EXPECT_FALSE(client.wait({"a"}, 0.05));
  EXPECT_FALSE(client.get_if_there("a"));
  client.set("a", "one");
  client.set("b", std::string("\0two", 4));
  RankStore other = client.another();
  EXPECT_TRUE(other.wait({"a", "b"}, 5));
  EXPECT_THAT(other.get({"b", "a"}), ElementsAre(std::string("\0two", 4), "one"));
  EXPECT_TRUE(server.get_if_there("run/a"));
  other.remove("a");
  EXPECT_FALSE(client.get_if_there("a"));
}

}  // namespace
}  // namespace halo
