// Checkpoints that are written behind the training.
#include "halo/train/background_saves.h"

#include <gmock/gmock.h>

#include <atomic>
#include <future>
#include <map>
#include <set>
#include <thread>

#include "halo/runtime/ranks.h"
#include "halo/train/job_testing.h"

namespace halo {
namespace {

using test::fingerprint;
using test::read_lines;
using test::ToyJob;
using test::TrainTest;
using testing::ElementsAre;
using testing::HasSubstr;

namespace fs = std::filesystem;

// Hashes of all files of all checkpoints, by their paths.
std::map<std::string, std::string> files_of(const fs::path& run) {
  std::map<std::string, std::string> files;
  for (const auto& entry : fs::recursive_directory_iterator(run)) {
    const std::string path = entry.path().lexically_relative(run).string();
    if (entry.is_regular_file() && path.starts_with("step-")) files[path] = hash_file(entry.path());
  }
  return files;
}

// Of `event` in the log, in its order.
std::vector<int64_t> steps_of(const fs::path& run, const std::string& event) {
  std::vector<int64_t> steps;
  for (const json::object& line : read_lines(run / "events.jsonl")) {
    if (line.at("event").as_string() == event) steps.push_back(line.at("step").as_int64());
  }
  return steps;
}

class BackgroundSavesTest : public TrainTest {
 protected:
  // Trains 8 steps on so many ranks and returns the folder. All checkpoints stay.
  fs::path train_in(const std::string& folder, const Sharing& how,
                    const std::function<void(ToyJob&)>& change) {
    const fs::path run = directory_ / folder;
    ToyJob toy(run, compute_, how);
    toy.job.async_checkpoints = true;
    toy.job.recipe.keep_checkpoints = 10;
    change(toy);
    train(toy.job);
    return run;
  }
  fs::path train_in(const std::string& folder, const std::function<void(ToyJob&)>& change) {
    return train_in(folder, {}, change);
  }

  // Lets the side files of these steps' checkpoints fail.
  static void fail_at(ToyJob& toy, const std::set<int64_t>& steps) {
    toy.job.model.write_side_files = [steps](const fs::path& folder) {
      for (const int64_t step : steps) {
        if (folder.filename() == fmt::format("step-{}.tmp", step)) {
          throw_error("{}: no space", (folder / "config.json").string());
        }
      }
      write_file(folder / "config.json", "{}");
    };
  }

  at::ScalarType compute_ = at::kFloat;
};

TEST_F(BackgroundSavesTest, LeaveTheFilesOfThoseThatTheTrainingWaitsFor) {
  for (const at::ScalarType compute : {at::kFloat, at::kBFloat16}) {
    compute_ = compute;
    for (const int64_t every : {1, 2, 3}) {
      const std::string name = fmt::format("{}-{}", at::toString(compute), every);
      const auto change = [&](bool async) {
        return [&, async](ToyJob& toy) {
          toy.job.async_checkpoints = async;
          toy.job.recipe.checkpoint_every = every;
        };
      };
      const fs::path behind = train_in("behind-" + name, change(true));
      const fs::path waits = train_in("waits-" + name, change(false));
      EXPECT_EQ(files_of(behind), files_of(waits));
      EXPECT_EQ(files_of(behind).size(), 6u * (1 + (8 + every - 1) / every));
      EXPECT_EQ(fingerprint(behind, 8), fingerprint(waits, 8));
      EXPECT_EQ(steps_of(behind, "save"), steps_of(waits, "save"));
    }
  }
}

// The write of step 4 does not end before step 6 is trained: a training that waits for it never is.
TEST_F(BackgroundSavesTest, AreWrittenWhileTheTrainingGoesOn) {
  std::promise<void> trained;
  std::atomic<bool> in_time = false, said = false;
  const fs::path run = train_in("run", [&](ToyJob& toy) {
    toy.job.recipe.checkpoint_every = 4;
    toy.job.model.write_side_files = [&](const fs::path& folder) {
      write_file(folder / "config.json", "{}");
      if (folder.filename() != "step-4.tmp") return;
      in_time =
          trained.get_future().wait_for(std::chrono::seconds(20)) == std::future_status::ready;
    };
    const auto good = toy.job.forward_backward;
    toy.job.forward_backward = [&, good](const TrainBatch& batch, int64_t count) {
      if (batch.targets[0].item<int64_t>() == 7 && !said.exchange(true)) trained.set_value();
      return good(batch, count);
    };
  });
  EXPECT_TRUE(in_time);
  const fs::path waits = train_in("waits", [](ToyJob& toy) {
    toy.job.recipe.checkpoint_every = 4;
    toy.job.async_checkpoints = false;
  });
  EXPECT_EQ(files_of(run), files_of(waits));
}

TEST_F(BackgroundSavesTest, AreOneAtATime) {
  std::atomic<int> writing = 0, most = 0;
  const fs::path run = train_in("run", [&](ToyJob& toy) {
    toy.job.recipe.checkpoint_every = 1;
    toy.job.model.write_side_files = [&](const fs::path& folder) {
      most = std::max<int>(most, ++writing);
      std::this_thread::sleep_for(std::chrono::milliseconds(30));
      write_file(folder / "config.json", "{}");
      --writing;
    };
  });
  EXPECT_EQ(most, 1);
  EXPECT_THAT(steps_of(run, "save"), ElementsAre(0, 1, 2, 3, 4, 5, 6, 7, 8));
  for (const json::object& line : read_lines(run / "events.jsonl")) {
    EXPECT_GE(line.at("seconds").as_double(), line.at("waited").as_double());
    EXPECT_GT(line.at("seconds").as_double(), 0.03);
  }
}

TEST_F(BackgroundSavesTest, MayFailTwiceInARow) {
  testing::internal::CaptureStdout();
  const fs::path run = train_in("run", [](ToyJob& toy) { fail_at(toy, {2, 4}); });
  const std::string said = testing::internal::GetCapturedStdout();
  EXPECT_THAT(said, HasSubstr("toy: no checkpoint at step 2 (1 in a row have failed, 3 end the "
                              "run): "));
  EXPECT_THAT(said, HasSubstr("run/step-4.tmp/config.json: no space"));
  EXPECT_THAT(steps_of(run, "save_failed"), ElementsAre(2, 4));
  EXPECT_THAT(steps_of(run, "save"), ElementsAre(0, 6, 8));
  EXPECT_FALSE(fs::exists(run / "step-2.tmp"));
  const fs::path good = train_in("good", [](ToyJob&) {});
  EXPECT_EQ(fingerprint(run, 8), fingerprint(good, 8));
}

TEST_F(BackgroundSavesTest, EndTheRunWhenTheThirdInARowFails) {
  const std::string text = test::error_of([&] {
    train_in("run", [](ToyJob& toy) { fail_at(toy, {2, 4, 6}); });
  });
  EXPECT_THAT(text, HasSubstr("toy: 3 checkpoints in a row could not be saved, the last one, of "
                              "step 6: "));
  EXPECT_THAT(text, HasSubstr("step-6.tmp/config.json: no space; the newest is "));
  EXPECT_THAT(text, HasSubstr("run/step-0"));
  const fs::path run = directory_ / "run";
  EXPECT_THAT(steps_of(run, "save_failed"), ElementsAre(2, 4, 6));
  train_in("run", [](ToyJob&) {});
  EXPECT_EQ(fingerprint(run, 8), fingerprint(train_in("good", [](ToyJob&) {}), 8));
}

TEST_F(BackgroundSavesTest, CountFailuresInARow) {
  const fs::path run = train_in("run", [](ToyJob& toy) {
    toy.job.recipe.checkpoint_every = 1;
    fail_at(toy, {1, 2, 4, 5, 7});
  });
  EXPECT_THAT(steps_of(run, "save_failed"), ElementsAre(1, 2, 4, 5, 7));
  EXPECT_THAT(steps_of(run, "save"), ElementsAre(0, 3, 6, 8));
}

// Without it there is nothing to go on with.
TEST_F(BackgroundSavesTest, TheLastOneMustNotFail) {
  const std::string text =
      test::error_of([&] { train_in("run", [](ToyJob& toy) { fail_at(toy, {8}); }); });
  EXPECT_THAT(text, HasSubstr("step-8.tmp/config.json: no space"));
  EXPECT_THAT(steps_of(directory_ / "run", "save"), ElementsAre(0, 2, 4, 6));
}

// Updates 37 to 46 are not finite; the save of step 36 is in flight when that is seen, and it and
// those before it end as `save` does.
std::string error_of_bad_steps(
    const std::function<void(const std::function<void(ToyJob&)>&)>& train_in,
    const std::function<void(const fs::path&)>& save) {
  return test::error_of([&] {
    train_in([&](ToyJob& toy) {
      toy.job.recipe.tokens = 48 * 40;
      toy.job.recipe.checkpoint_every = 12;
      for (int64_t step = 37; step < 47; ++step) {
        toy.gradient_factor[step] = std::numeric_limits<double>::quiet_NaN();
      }
      toy.job.model.write_side_files = [save](const fs::path& folder) {
        if (folder.filename() == "step-36.tmp") {
          std::this_thread::sleep_for(std::chrono::milliseconds(300));
        }
        save(folder);
      };
    });
  });
}

// What was in flight when a run diverged is there, and named.
TEST_F(BackgroundSavesTest, InFlightIsEndedBeforeARunGivesUp) {
  const std::string text =
      error_of_bad_steps([&](const auto& change) { train_in("run", change); },
                         [](const fs::path& folder) { write_file(folder / "config.json", "{}"); });
  EXPECT_THAT(text, HasSubstr("10 updates in a row up to step 46"));
  EXPECT_THAT(text, HasSubstr("run/step-36 with a lower"));
  EXPECT_TRUE(fs::exists(directory_ / "run/step-36/state/manifest.json"));
}

// The third in a row that fails, but not why the run ends.
TEST_F(BackgroundSavesTest, InFlightMayFailWhereARunGivesUp) {
  const std::string text = error_of_bad_steps([&](const auto& change) { train_in("run", change); },
                                              [](const fs::path& folder) {
                                                if (folder.filename() != "step-0.tmp")
                                                  throw_error("no space");
                                                write_file(folder / "config.json", "{}");
                                              });
  EXPECT_THAT(text, HasSubstr("10 updates in a row up to step 46"));
  EXPECT_THAT(text, HasSubstr("run/step-0 with a lower"));
  EXPECT_THAT(steps_of(directory_ / "run", "save_failed"), ElementsAre(12, 24, 36));
}

class BackgroundSavesOfRanksTest : public BackgroundSavesTest {
 protected:
  fs::path train_on(int64_t n, const std::string& folder, Shard shard,
                    const std::function<void(ToyJob&, int64_t rank)>& change) {
    run_threads(n, 60, [&](Communicator& ranks) {
      train_in(folder, {&ranks, shard}, [&](ToyJob& toy) {
        toy.job.recipe.tokens_per_step = 48;
        toy.job.recipe.tokens = 8 * 48;
        change(toy, ranks.rank());
      });
    });
    return directory_ / folder;
  }

  // Whose run folder of rank 2 is a link, which is not there while step `from` and those behind it
  // are trained, until `failures` saves have failed.
  std::function<void(ToyJob&, int64_t)> without_folder(int64_t from, size_t failures) {
    return [=, this](ToyJob& toy, int64_t rank) {
      if (rank != 2) return;
      const fs::path run = toy.job.directory, link = directory_ / "link";
      fs::create_directories(run);
      fs::remove(link);
      fs::create_directory_symlink(run, link);
      toy.job.directory = link;
      const auto good = toy.job.forward_backward;
      toy.job.forward_backward = [=](const TrainBatch& batch, int64_t count) {
        if (batch.targets[0].item<int64_t>() == from) fs::remove(link);
        if (steps_of(run, "save_failed").size() >= failures && !fs::exists(link)) {
          fs::create_directory_symlink(run, link);
        }
        return good(batch, count);
      };
    };
  }
};

TEST_F(BackgroundSavesOfRanksTest, LeaveTheFilesOfThoseThatTheTrainingWaitsFor) {
  for (const at::ScalarType compute : {at::kFloat, at::kBFloat16}) {
    compute_ = compute;
    for (const int64_t n : {2, 3}) {
      for (const Shard shard : {Shard::kNone, Shard::kOptimizer, Shard::kFull}) {
        const auto train_with = [&](bool async) {
          return train_on(n,
                          fmt::format("{}-{}-{}-{}", at::toString(compute), n, int(shard), async),
                          shard, [&](ToyJob& toy, int64_t) { toy.job.async_checkpoints = async; });
        };
        const fs::path behind = train_with(true), waits = train_with(false);
        EXPECT_EQ(files_of(behind), files_of(waits));
        EXPECT_EQ(files_of(behind).size(), 6u * 5);
        EXPECT_THAT(steps_of(behind, "save"), ElementsAre(0, 2, 4, 6, 8));
      }
    }
  }
}

TEST_F(BackgroundSavesOfRanksTest, FailOnAllWhereOneFails) {
  testing::internal::CaptureStdout();
  const fs::path run = train_on(3, "run", Shard::kOptimizer, without_folder(2, 2));
  const std::string said = testing::internal::GetCapturedStdout();
  EXPECT_THAT(said, HasSubstr("link/step-2.tmp/model.safetensors: cannot open: No such file"));
  EXPECT_THAT(steps_of(run, "save_failed"), ElementsAre(2, 4));
  EXPECT_THAT(steps_of(run, "save"), ElementsAre(0, 6, 8));
  EXPECT_FALSE(fs::exists(run / "step-2.tmp"));
  const fs::path good = train_on(3, "good", Shard::kOptimizer, [](ToyJob&, int64_t) {});
  EXPECT_EQ(fingerprint(run, 8), fingerprint(good, 8));
}

TEST_F(BackgroundSavesOfRanksTest, EndTheRunWhereOneFailsThreeTimes) {
  const std::string text =
      test::error_of([&] { train_on(3, "run", Shard::kOptimizer, without_folder(2, 3)); });
  EXPECT_THAT(text, HasSubstr("toy: 3 checkpoints in a row could not be saved, the last one, of "
                              "step 6: "));
  EXPECT_THAT(text, HasSubstr("link/step-6.tmp/model.safetensors: cannot open"));
  const fs::path run = directory_ / "run";
  EXPECT_THAT(steps_of(run, "save_failed"), ElementsAre(2, 4, 6));
  const fs::path good = train_on(3, "good", Shard::kOptimizer, [](ToyJob&, int64_t) {});
  train_on(3, "run", Shard::kOptimizer, [](ToyJob&, int64_t) {});
  EXPECT_EQ(fingerprint(run, 8), fingerprint(good, 8));
}

// All or none write behind the training.
TEST_F(BackgroundSavesOfRanksTest, AreASettingOfAll) {
  const std::string text = test::error_of([&] {
    train_on(2, "run", Shard::kNone,
             [](ToyJob& toy, int64_t rank) { toy.job.async_checkpoints = rank == 0; });
  });
  EXPECT_THAT(text, HasSubstr("has other data or another recipe than the first rank"));
}

}  // namespace
}  // namespace halo
