#include "halo/train/checkpoint.h"

#include <sys/resource.h>

#include <fstream>

#include "halo/base/check.h"
#include "halo/train/job_testing.h"

namespace halo {
namespace {

using test::ToyJob;
using test::TrainTest;

namespace fs = std::filesystem;

// Writes checkpoints whose arenas are filled with numbers of their step.
class CheckpointTest : public TrainTest {
 protected:
  CheckpointTest() : toy_(directory_ / "run"), checkpoints_(directory_ / "run", 2) {}

  void fill(double step) {
    toy_.store.master().fill_(step + 0.25);
    toy_.store.moment1().fill_(step + 0.5);
    toy_.store.moment2().fill_(step + 0.75);
    toy_.store.refresh_compute();
  }
  void save(int64_t step) {
    fill(step);
    TrainState state;
    state.stage = "toy";
    state.step = step;
    state.seed = ~uint64_t{0};
    state.recipe = {{"learning_rate", 0.1}};
    checkpoints_.save(state, toy_.store, toy_.job.model);
  }
  // The step of the newest checkpoint, which is then in the store; -1: there is none.
  int64_t load() {
    fill(1e6);
    const auto state = checkpoints_.load_newest(
        toy_.store, [&](const std::string& text) { warnings_.push_back(text); });
    if (!state) return -1;
    EXPECT_EQ(toy_.store.value("model.layers.1.table")[1][3].item<float>(), state->step + 0.25);
    EXPECT_EQ(toy_.store.view(toy_.store.moment1(), "model.layers.0.table")[0].item<float>(),
              state->step + 0.5);
    EXPECT_EQ(toy_.store.view(toy_.store.moment2(), "model.layers.0.table")[7].item<float>(),
              state->step + 0.75);
    return state->step;
  }
  void damage(const fs::path& path) {
    std::fstream file(path, std::ios::in | std::ios::out | std::ios::binary);
    file.seekp(-1, std::ios::end);
    file.put(0x55);
  }

  ToyJob toy_;
  Checkpoints checkpoints_;
  std::vector<std::string> warnings_;
};

TEST_F(CheckpointTest, ReadsBackWhatItWrote) {
  EXPECT_EQ(load(), -1);
  save(3);
  EXPECT_EQ(load(), 3);
  const TrainState state = checkpoints_.verify(3, true);
  EXPECT_EQ(state.stage, "toy");
  EXPECT_EQ(state.seed, ~uint64_t{0});
  EXPECT_EQ(state.recipe.at("learning_rate").as_double(), 0.1);
  EXPECT_TRUE(fs::exists(checkpoints_.path(3) / "config.json"));
  EXPECT_TRUE(warnings_.empty());
}

TEST_F(CheckpointTest, KeepsTheNewest) {
  for (int64_t step : {0, 2, 9, 10}) save(step);
  EXPECT_EQ(checkpoints_.steps(), (std::vector<int64_t>{10, 9}));
}

TEST_F(CheckpointTest, FallsBackFromADamagedOne) {
  save(1);
  save(2);
  damage(checkpoints_.path(2) / "state/moment1.safetensors");
  EXPECT_EQ(load(), 1);
  ASSERT_EQ(warnings_.size(), 1u);
  EXPECT_NE(warnings_[0].find("moment1.safetensors"), std::string::npos);
  EXPECT_EQ(checkpoints_.steps(), std::vector<int64_t>{1});  // the other is aside
  save(2);                                                   // and not in the way
  EXPECT_EQ(load(), 2);
}

TEST_F(CheckpointTest, FallsBackFromAnUnfinishedOne) {
  save(1);
  save(2);
  fs::remove(checkpoints_.path(2) / "state/manifest.json");
  EXPECT_EQ(load(), 1);
  save(2);
  fs::resize_file(checkpoints_.path(2) / "model.safetensors", 10);
  EXPECT_EQ(load(), 1);
  save(2);
  write_file(checkpoints_.path(2) / "state/manifest.json", "{\"format\": 1,");
  EXPECT_EQ(load(), 1);
}

TEST_F(CheckpointTest, RefusesWhenNoneIsWhole) {
  save(1);
  damage(checkpoints_.path(1) / "model.safetensors");
  EXPECT_NE(test::error_of([&] { load(); }).find("no checkpoint in it is whole"),
            std::string::npos);
  EXPECT_EQ(checkpoints_.steps(), std::vector<int64_t>{1});  // nothing is moved
}

TEST_F(CheckpointTest, RefusesAnotherModel) {
  save(1);
  ParameterStore other({{"model.layers.0.table", {8}}, {"model.layers.1.table", {4, 2}}},
                       ParameterStore::Use::kTrained, at::kFloat, at::kCPU);
  EXPECT_NE(test::error_of([&] { checkpoints_.load(1, other); }).find("'model.layers.1.table'"),
            std::string::npos);
}

TEST_F(CheckpointTest, CleansLeftovers) {
  save(1);
  fs::create_directories(directory_ / "run/step-2.tmp/state");
  write_file(directory_ / "run/step-2.tmp/state/masters.safetensors", "half");
  checkpoints_.clean();
  EXPECT_FALSE(fs::exists(directory_ / "run/step-2.tmp"));
  EXPECT_EQ(load(), 1);
}

TEST_F(CheckpointTest, SaysHowMuchSpaceIsMissing) {
  const std::string text =
      test::error_of([&] { require_space(directory_.path(), uint64_t{1} << 60); });
  EXPECT_NE(text.find("needs 1152921504.607 GB, the disk has"), std::string::npos) << text;
}

TEST_F(CheckpointTest, SaysWhereItCannotWrite) {
  write_file(directory_ / "file", "");
  EXPECT_NE(test::error_of([&] { Checkpoints(directory_ / "file/run", 2); }).find("cannot create"),
            std::string::npos);
}

TEST_F(CheckpointTest, AFailedWriteLeavesTheOlderOne) {
  EXPECT_EXIT(
      {
        save(1);
        // Writes past this size fail as on a full disk.
        std::signal(SIGXFSZ, SIG_IGN);
        rlimit limit;
        limit.rlim_cur = limit.rlim_max =
            fs::file_size(directory_ / "run/step-1/model.safetensors") - 1;
        setrlimit(RLIMIT_FSIZE, &limit);
        std::fputs(test::error_of([&] { save(2); }).c_str(), stderr);
        std::exit(fs::exists(directory_ / "run/step-2.tmp") ? 1 : 0);
      },
      ::testing::ExitedWithCode(0), "safetensors.*File too large");
  EXPECT_EQ(load(), 1);
}

}  // namespace
}  // namespace halo
