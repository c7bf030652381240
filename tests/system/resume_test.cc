// A conversion that is killed at named points of every stage, or told to stop, and resumed: it ends
// with the same bytes as one that nothing disturbed.
#include <gtest/gtest.h>
#include <signal.h>

#include <chrono>
#include <set>
#include <thread>

#include "halo/base/check.h"
#include "halo/base/files.h"
#include "tests/system/world.h"

namespace halo::system_test {
namespace {

struct Kill {
  std::string point;  // HALO_CRASH_AT: the K-th time the process passes it
  std::string stage;  // that is running then
};

const Words kTraining = {"align", "align-attention", "distill", "finetune", "on-policy"};

// One run folder, killed at each point in turn, each time resumed from what is left.
void expect_unharmed(const std::string& name, const std::vector<Kill>& kills) {
  const fs::path run = World::get().path(name);
  std::set<std::string> hit;
  for (const Kill& kill : kills) {
    const Outcome outcome = run_halo(convert(run, fs::exists(run), kill.point));
    ASSERT_EQ(outcome.signal, SIGKILL) << kill.point << " in " << kill.stage << ": " << outcome.err;
    ASSERT_EQ(running_stage(run), kill.stage) << kill.point;
    hit.insert(kill.stage);
  }
  for (const std::string& stage : kStages) EXPECT_TRUE(hit.count(stage)) << stage << " was spared";
  const Outcome last = run_halo(convert(run, true));
  ASSERT_EQ(last.code, 0) << last.err;
  expect_same_record(run, World::get().reference());
  for (const auto& entry : fs::recursive_directory_iterator(run)) {
    EXPECT_NE(entry.path().extension(), ".tmp") << entry.path() << " was left behind";
  }
  fs::remove_all(run);
}

void add_unsaved_stage(std::vector<Kill>& kills, const std::string& stage) {
  kills.push_back({"directory.before_rename:1", stage});
  kills.push_back({"stage.before_result:1", stage});
}

TEST(Resume, KilledAroundCheckpointsOfEveryStage) {
  std::vector<Kill> kills;
  add_unsaved_stage(kills, "transfer");
  for (const std::string& stage : kTraining) {
    if (stage == "distill") add_unsaved_stage(kills, "select");
    // The process that enters the stage saves step 0, the next ones go on from what is there.
    kills.push_back({"checkpoint.before_manifest:1", stage});
    kills.push_back({"checkpoint.before_rename:1", stage});
    kills.push_back({"checkpoint.before_cleanup:1", stage});  // step-0 is whole
    kills.push_back({"train.mid_step:1", stage});
    kills.push_back({"train.mid_step:2", stage});
    kills.push_back({"checkpoint.after_weights:1", stage});  // of step-2
    kills.push_back({"checkpoint.after_state:1", stage});
    kills.push_back({"checkpoint.mid_cleanup:1", stage});  // step-4 is whole, step-0 half gone
    kills.push_back({"stage.before_result:1", stage});
  }
  add_unsaved_stage(kills, "scale");
  kills.push_back({"directory.before_rename:2", "scale"});  // RUN/model
  expect_unharmed("killed-around-checkpoints", kills);
}

// A process renames config.resolved.toml, env.json and STATUS, then inputs.json where the stage has
// none yet, then, in a stage that trains and has no checkpoint, of step-0 config, tokenizer and
// manifest; its tensors are written in place, into a folder with a temporary name. Where the stage
// before lacks its result only, that is written first: three files more.
TEST(Resume, KilledAtEveryFile) {
  std::vector<Kill> kills;
  const auto add = [&](const char* point, std::initializer_list<int> times,
                       const std::string& stage) {
    for (int k : times) kills.push_back({fmt::format("file.{}:{}", point, k), stage});
  };
  add("before_rename", {4, 5, 6, 7}, "transfer");
  add("after_rename", {7}, "transfer");  // result.json is there, the next stage has not begun
  for (const std::string& stage : kTraining) {
    if (stage == "distill") {
      add("after_rename", {7}, "select");
      add("before_rename", {5, 8}, "select");
      add("before_sync", {4, 7}, "select");
      add("after_rename", {8}, "select");
    }
    add("after_rename", {7, 4, 5, 6}, stage);
    add("before_rename", {4, 5, 6}, stage);
    add("before_sync", {5}, stage);
    add("before_write", {6}, stage);
    kills.push_back({"checkpoint.mid_write:1", stage});  // the model, then the three of the state
    kills.push_back({"checkpoint.mid_write:100", stage});
    kills.push_back({"stage.before_result:1", stage});
  }
  add("before_rename", {7, 8, 4, 5}, "scale");
  add("after_rename", {8}, "scale");
  add("before_rename", {4, 5, 3}, "eval");  // inputs.json; summary.json; STATUS
  expect_unharmed("killed-at-every-file", kills);
}

// SIGTERM as soon as `sign` is there.
Outcome stop_at(const Process& process, const fs::path& sign) {
  Running running(process);
  while (!fs::exists(sign) && running.alive()) {
    std::this_thread::sleep_for(std::chrono::milliseconds(2));
  }
  running.send(SIGTERM);
  return running.wait();
}

TEST(Resume, StopsWhenAskedToAndGoesOn) {
  const fs::path run = World::get().path("stopped");
  for (const char* sign :
       {"transfer", "align/metrics.jsonl", "select", "distill/metrics.jsonl", "scale"}) {
    const bool resume = fs::exists(run);
    const Outcome outcome = stop_at(convert(run, resume), run / sign);
    expect_error(outcome, 3, {"stopped"});
  }
  EXPECT_EQ(run_halo(convert(run, true)).code, 0);
  expect_same_record(run, World::get().reference());
}

// A stage alone: refused before what it needs, redone when it is done, with the same result.
TEST(Resume, EveryStageAgain) {
  const fs::path run = World::get().path("every-stage-again");
  fs::copy(World::get().reference(), run, fs::copy_options::recursive);
  for (const std::string& stage : kStages) {
    const Outcome outcome = run_halo({stage, "--run", run.string()});
    EXPECT_EQ(outcome.code, 0) << outcome.err;
    EXPECT_NE(outcome.err.find("halo: warning: " + stage + ": done before"), std::string::npos);
    expect_same_record(run, World::get().reference());
  }
}

TEST(Resume, OneStageKilledAndAgain) {
  const fs::path run = World::get().path("again");
  fs::copy(World::get().reference(), run, fs::copy_options::recursive);
  const Words stage = {"distill", "--run", run.string()};
  Process killed{stage, "train.mid_step:3"};
  EXPECT_EQ(run_halo(killed).signal, SIGKILL);
  EXPECT_FALSE(fs::exists(run / "distill" / "result.json"));
  // What needs it is refused until it is done again.
  expect_error(run_halo({"finetune", "--run", run.string()}), 1,
               {"not finished", "halo distill --run"});
  const Outcome outcome = run_halo(stage);
  EXPECT_EQ(outcome.code, 0) << outcome.err;
  EXPECT_EQ(outcome.out, "");
  expect_same_record(run, World::get().reference());

  const Outcome redone = run_halo(stage);
  EXPECT_EQ(redone.code, 0) << redone.err;
  EXPECT_NE(redone.err.find("halo: warning: distill: done before"), std::string::npos);
  EXPECT_EQ(read_file(run / "distill" / "events.jsonl").find("\"resume\""), std::string::npos)
      << "it did not train again";
  expect_same_record(run, World::get().reference());
}

}  // namespace
}  // namespace halo::system_test
