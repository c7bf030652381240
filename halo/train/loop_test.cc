#include "halo/train/loop.h"

#include <set>
#include <tuple>

#include "halo/base/check.h"
#include "halo/base/stop.h"
#include "halo/train/job_testing.h"

namespace halo {
namespace {

using test::fingerprint;
using test::read_lines;
using test::ToyJob;
using test::TrainTest;

namespace fs = std::filesystem;

constexpr double kNaN = std::numeric_limits<double>::quiet_NaN();

std::string train_error(const TrainJob& job) {
  return test::error_of([&] { train(job); });
}

std::set<std::string> step_folders(const fs::path& run) {
  std::set<std::string> names;
  for (const auto& entry : fs::directory_iterator(run)) {
    if (entry.is_directory()) names.insert(entry.path().filename().string());
  }
  return names;
}

class LoopTest : public TrainTest {
 protected:
  // Of a whole run without interruption.
  std::string unbroken() {
    ToyJob toy(directory_ / "unbroken");
    train(toy.job);
    return fingerprint(toy.job.directory, 8);
  }
};

TEST_F(LoopTest, TrainsAndSaysSo) {
  ToyJob toy(directory_ / "run");
  toy.job.recipe.tokens = 24 * 60;
  toy.job.recipe.learning_rate = 0.5;
  const TrainResult result = train(toy.job);
  EXPECT_EQ(result.steps, 60);
  EXPECT_EQ(result.skipped, 0);
  EXPECT_LT(result.last_loss, result.first_loss / 3);
  EXPECT_EQ(step_folders(toy.job.directory), (std::set<std::string>{"step-58", "step-60"}));

  const auto lines = read_lines(toy.job.directory / "metrics.jsonl");
  ASSERT_EQ(lines.size(), 60u);
  const json::object& line = lines[2];
  EXPECT_EQ(line.at("step").as_int64(), 3);
  EXPECT_EQ(line.at("tokens").as_int64(), 72);
  EXPECT_EQ(line.at("lr").as_double(),
            (Schedule{RateCurve::kWarmupCosine, 0.5, 1e-5, 2, 60}).rate(3));
  EXPECT_FALSE(line.at("skipped").as_bool());
  EXPECT_NEAR(line.at("loss").as_double(),
              line.at("first").as_double() + line.at("second").as_double(), 1e-5);
  EXPECT_GT(line.at("grad_norm").as_double(), 0);
  EXPECT_GT(line.at("tokens_per_second").as_double(), 0);

  // A finished run has nothing to do.
  ToyJob again(directory_ / "run");
  again.job.recipe = toy.job.recipe;
  again.job.forward_backward = [](const TrainBatch&, int64_t) -> at::Tensor {
    throw_error("a finished run trained on");
  };
  const TrainResult same = train(again.job);
  EXPECT_EQ(same.last_loss, result.last_loss);
  EXPECT_EQ(same.first_loss, result.first_loss);
  EXPECT_TRUE(at::equal(again.store.master(), toy.store.master()));
}

// The first step's loss and gradient against the same taken in one piece.
TEST_F(LoopTest, MicroBatchesAddUpToTheStep) {
  ToyJob toy(directory_ / "run");
  toy.job.recipe.tokens = 24;
  toy.job.recipe.warmup_steps = 0;
  train(toy.job);
  const at::Tensor tokens = toy.job.data(0, 0, 6).tokens.to(at::kDouble);
  const auto line = read_lines(toy.job.directory / "metrics.jsonl").at(0);
  EXPECT_NEAR(line.at("loss").as_double(), 2 * tokens.square().mean().item<double>(), 1e-5);
}

TEST_F(LoopTest, ABadStepIsLeftOutAndLogged) {
  ToyJob toy(directory_ / "run");
  toy.job.recipe.checkpoint_every = 1;
  toy.job.recipe.keep_checkpoints = 10;
  toy.gradient_factor[3] = toy.gradient_factor[8] = kNaN;
  const TrainResult result = train(toy.job);
  EXPECT_EQ(result.skipped, 2);
  // It is no moment for a checkpoint, but for the last one.
  EXPECT_EQ(step_folders(toy.job.directory),
            (std::set<std::string>{"step-0", "step-1", "step-2", "step-4", "step-5", "step-6",
                                   "step-7", "step-8"}));
  for (const char* file : {"model.safetensors", "state/masters.safetensors",
                           "state/moment1.safetensors", "state/moment2.safetensors"}) {
    const fs::path run = toy.job.directory;
    EXPECT_NE(hash_file(run / "step-2" / file), hash_file(run / "step-4" / file)) << file;
    EXPECT_EQ(hash_file(run / "step-7" / file), hash_file(run / "step-8" / file)) << file;
  }
  const auto lines = read_lines(toy.job.directory / "metrics.jsonl");
  EXPECT_TRUE(lines.at(2).at("skipped").as_bool());
  EXPECT_TRUE(lines.at(2).at("loss").is_null());
  EXPECT_FALSE(lines.at(3).at("skipped").as_bool());
  int64_t events = 0;
  for (const auto& event : read_lines(toy.job.directory / "events.jsonl")) {
    if (event.at("event") != "skipped") continue;
    const int64_t step = events++ == 0 ? 3 : 8;
    EXPECT_EQ(event.at("step").as_int64(), step);
    EXPECT_EQ(event.at("first_row").as_int64(), 6 * (step - 1));
    EXPECT_EQ(event.at("rows").as_int64(), 6);
  }
  EXPECT_EQ(events, 2);
}

TEST_F(LoopTest, TenBadStepsInARowStop) {
  ToyJob toy(directory_ / "run");
  toy.job.recipe.tokens = 24 * 40;
  toy.job.recipe.checkpoint_every = 0;
  for (int64_t step = 5; step < 15; ++step) toy.gradient_factor[step] = kNaN;
  const std::string text = train_error(toy.job);
  EXPECT_NE(text.find("10 updates in a row up to step 14"), std::string::npos) << text;
  EXPECT_NE(text.find("step-0 with a lower learning_rate than 0.1"), std::string::npos) << text;
  EXPECT_EQ(step_folders(toy.job.directory), (std::set<std::string>{"step-0"}));
  EXPECT_EQ(read_lines(toy.job.directory / "metrics.jsonl").size(), 14u);
  ToyJob again(directory_ / "run");
  again.job.recipe = toy.job.recipe;
  EXPECT_EQ(train(again.job).skipped, 0);

  // None of those in between replaces a checkpoint.
  ToyJob often(directory_ / "often");
  often.job.recipe = toy.job.recipe;
  often.job.recipe.checkpoint_every = 1;
  often.gradient_factor = toy.gradient_factor;
  EXPECT_NE(train_error(often.job).find("step-4 with a lower"), std::string::npos);
  EXPECT_EQ(step_folders(often.job.directory), (std::set<std::string>{"step-3", "step-4"}));
}

TEST_F(LoopTest, ADivergedRunStopsAndKeepsItsLastGoodCheckpoint) {
  ToyJob toy(directory_ / "run");
  toy.job.recipe.tokens = 24 * 100;
  toy.job.recipe.checkpoint_every = 8;
  toy.job.recipe.diverged_factor = 10;
  for (int64_t step = 50; step <= 100; ++step) toy.gradient_factor[step] = 1e5;
  const std::string text = train_error(toy.job);
  EXPECT_NE(text.find("diverged at step 59"), std::string::npos) << text;
  EXPECT_NE(text.find("step-48 with a lower learning_rate than 0.1"), std::string::npos) << text;
  EXPECT_EQ(step_folders(toy.job.directory), (std::set<std::string>{"step-40", "step-48"}));
  // As the message says; the changed rate is noted.
  ToyJob again(directory_ / "run");
  again.job.recipe = toy.job.recipe;
  again.job.recipe.learning_rate = 0.01;
  EXPECT_EQ(train(again.job).steps, 100);
  bool noted = false;
  for (const auto& event : read_lines(toy.job.directory / "events.jsonl")) {
    noted |= event.at("event") == "warning" &&
             event.at("text").as_string().find("learning_rate") != json::string::npos;
  }
  EXPECT_TRUE(noted);
}

TEST_F(LoopTest, RefusesToResumeAnotherRun) {
  ToyJob toy(directory_ / "run");
  train(toy.job);
  toy.job.seed = 8;
  EXPECT_NE(train_error(toy.job).find("was made with seed 7, this run has 8"), std::string::npos);
  toy.job.seed = 7;
  toy.job.data_id = "other";
  EXPECT_NE(train_error(toy.job).find("data"), std::string::npos);
  toy.job.data_id = "toy data";
  toy.job.recipe.tokens = 24 * 4;
  EXPECT_NE(train_error(toy.job).find("is past the recipe's 4 steps"), std::string::npos);
}

TEST_F(LoopTest, ADamagedCheckpointCostsOneIntervalOnly) {
  const std::string expected = unbroken();
  ToyJob toy(directory_ / "run");
  train(toy.job);
  fs::resize_file(directory_ / "run/step-8/state/moment2.safetensors", 100);
  ToyJob again(directory_ / "run");
  train(again.job);
  EXPECT_EQ(fingerprint(again.job.directory, 8), expected);
  EXPECT_EQ(read_lines(directory_ / "run/events.jsonl").back().at("event"), "save");
}

// What a step trains on may depend on its weights: one that is cut off goes on to the same bits.
TEST_F(LoopTest, BatchesAreCompletedWithTheWeightsOfTheirStep) {
  const auto run = [&](const char* folder, bool breaks) {
    ToyJob toy(directory_ / folder);
    std::vector<int64_t> steps;
    toy.job.complete = [&](int64_t step, int64_t first_row, std::vector<TrainBatch>& batches) {
      steps.push_back(step);
      EXPECT_EQ(first_row, 0);
      EXPECT_EQ(batches.size(), 2u);
      EXPECT_EQ(batches[0].rows + batches[1].rows, 6);
      if (breaks && step == 5) throw_error("cut off");
      const at::Tensor table = toy.store.value("model.layers.0.table");
      const auto shift = static_cast<int64_t>(1e4 * std::abs(table.sum().item<double>()));
      for (TrainBatch& batch : batches) batch.tokens = (batch.tokens + shift).remainder(8);
    };
    if (breaks) {
      EXPECT_EQ(train_error(toy.job), "cut off");
      return steps;
    }
    train(toy.job);
    return steps;
  };
  EXPECT_EQ(run("whole", false), (std::vector<int64_t>{0, 1, 2, 3, 4, 5, 6, 7}));
  run("broken", true);
  EXPECT_EQ(run("broken", false), (std::vector<int64_t>{4, 5, 6, 7}));
  EXPECT_EQ(fingerprint(directory_ / "broken", 8), fingerprint(directory_ / "whole", 8));
  EXPECT_NE(fingerprint(directory_ / "whole", 8), unbroken());
}

TEST_F(LoopTest, TheFirstCheckpointFindsWhatCannotBeWritten) {
  ToyJob toy(directory_ / "run");
  toy.job.model.write_side_files = [](const fs::path& folder) {
    throw_error("{}: no", folder.string());
  };
  EXPECT_NE(train_error(toy.job).find("step-0.tmp: no"), std::string::npos);
  EXPECT_TRUE(step_folders(toy.job.directory).empty());
}

// Weights that are not those the run began with: found by reading the first checkpoint, before
// anything is computed.
TEST_F(LoopTest, TheFirstCheckpointIsReadBackBeforeTheFirstStep) {
  ToyJob toy(directory_ / "run");
  const auto write_side_files = toy.job.model.write_side_files;
  toy.job.model.write_side_files = [&](const fs::path& folder) {
    write_side_files(folder);
    toy.store.master()[0] += 1;  // the masters' file follows
  };
  toy.job.forward_backward = [](const TrainBatch&, int64_t) -> at::Tensor {
    throw_error("a step was made");
  };
  EXPECT_NE(train_error(toy.job).find("step-0: the first checkpoint reads back differently"),
            std::string::npos);
}

// A run told to stop during step k goes on to the same bits.
class StopTest : public LoopTest, public ::testing::WithParamInterface<std::tuple<int64_t, bool>> {
 protected:
  int64_t step() const { return std::get<0>(GetParam()); }
  bool async() const { return std::get<1>(GetParam()); }
};

TEST_P(StopTest, ResumesExactly) {
  const fs::path run = directory_ / "run";
  EXPECT_EXIT(
      {
        install_stop_handler([](const std::string&) { std::_Exit(9); });
        ToyJob toy(run);
        toy.job.async_checkpoints = async();
        toy.signal_at = step();
        try {
          train(toy.job);
        } catch (const Stopped& stopped) {
          std::fputs(stopped.what(), stderr);
          std::exit(3);
        }
      },
      ::testing::ExitedWithCode(3), "run it again");
  // Told in the first of two micro-batches: the step is given up.
  EXPECT_TRUE(fs::exists(run / fmt::format("step-{}", step() - 1)));
  ToyJob toy(run);
  toy.job.async_checkpoints = async();
  train(toy.job);
  EXPECT_EQ(fingerprint(run, 8), unbroken());
}

INSTANTIATE_TEST_SUITE_P(EachStep, StopTest,
                         ::testing::Combine(::testing::Range<int64_t>(1, 9),
                                            ::testing::Values(false)));
INSTANTIATE_TEST_SUITE_P(BehindTheTraining, StopTest,
                         ::testing::Combine(::testing::Values(3, 6), ::testing::Values(true)));

// A run killed at any point of a save goes on to the same bits.
class CrashTest : public LoopTest,
                  public ::testing::WithParamInterface<std::tuple<const char*, bool>> {
 protected:
  const char* point() const { return std::get<0>(GetParam()); }
  bool async() const { return std::get<1>(GetParam()); }
};

TEST_P(CrashTest, ResumesExactly) {
  const fs::path run = directory_ / "run";
  EXPECT_EXIT(
      {
        setenv("HALO_CRASH_AT", point(), 1);
        ToyJob toy(run);
        toy.job.async_checkpoints = async();
        train(toy.job);
      },
      ::testing::KilledBySignal(SIGKILL), "");
  ToyJob toy(run);
  toy.job.async_checkpoints = async();
  train(toy.job);
  EXPECT_EQ(fingerprint(run, 8), unbroken());
  EXPECT_EQ(step_folders(run), (std::set<std::string>{"step-6", "step-8"}));
}

// The K-th passing of a save's points is the save of step 2 (K - 1); a save writes eight tensors
// and, with temporary names of their own, two files.
INSTANTIATE_TEST_SUITE_P(
    EachPoint, CrashTest,
    ::testing::Combine(::testing::Values("train.mid_step:1", "train.mid_step:5",
                                         "checkpoint.mid_write:2", "checkpoint.after_weights:1",
                                         "checkpoint.after_weights:3", "checkpoint.after_state:1",
                                         "checkpoint.after_state:3", "checkpoint.before_manifest:1",
                                         "checkpoint.before_manifest:3",
                                         "checkpoint.before_rename:1", "checkpoint.before_rename:3",
                                         "checkpoint.before_cleanup:1",
                                         "checkpoint.before_cleanup:4", "checkpoint.mid_cleanup:1",
                                         "checkpoint.mid_cleanup:3", "file.before_write:5",
                                         "file.before_rename:6", "file.after_rename:8"),
                       ::testing::Values(false)));
INSTANTIATE_TEST_SUITE_P(
    BehindTheTraining, CrashTest,
    ::testing::Combine(::testing::Values("train.mid_step:4", "checkpoint.mid_write:28",
                                         "checkpoint.before_manifest:3",
                                         "checkpoint.before_rename:3", "checkpoint.mid_cleanup:2"),
                       ::testing::Values(true)));

}  // namespace
}  // namespace halo
