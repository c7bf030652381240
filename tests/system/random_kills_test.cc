// Twenty kills at random moments inside every stage and inside the evaluation, each resumed to the
// bits of a run that nothing disturbed. Several minutes, so it runs when asked for
// (docs/results/random-kills.md), not with the others:
//   build/tests/system_test --gtest_filter='RandomKills.*' --gtest_also_run_disabled_tests
#include <gtest/gtest.h>
#include <signal.h>

#include <chrono>
#include <iostream>
#include <thread>

#include "halo/base/check.h"
#include "halo/base/random.h"
#include "tests/system/world.h"

namespace halo::system_test {
namespace {

using Clock = std::chrono::steady_clock;

constexpr int64_t kKills = 20;  // a stage

// The undisturbed run as it was when `stage` began.
void go_back_to(const std::string& stage, const fs::path& run) {
  fs::remove_all(run);
  fs::copy(World::get().reference(), run, fs::copy_options::recursive);
  const auto first = std::find(kStages.begin(), kStages.end(), stage);
  for (auto later = first; later != kStages.end(); ++later) fs::remove_all(run / *later);
  for (const char* made_last : {"summary.json", "report.html"}) fs::remove(run / made_last);
  if (first != kStages.end()) fs::remove_all(run / "model");
}

// Returns once the process is inside `stage`, or has ended.
void wait_for(const std::string& stage, const fs::path& run, Running& running) {
  while (running.alive() && running_stage(run) != stage) {
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }
}

double seconds_of(const std::string& stage, const fs::path& run) {
  go_back_to(stage, run);
  fs::remove(run / "STATUS");
  Running running(convert(run, true));
  wait_for(stage, run, running);
  const Clock::time_point start = Clock::now();
  while (running.alive() && running_stage(run) == stage) {
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }
  const std::chrono::duration<double> time = Clock::now() - start;
  EXPECT_EQ(running.wait().code, 0);
  return time.count();
}

// Kills `halo convert` after `seconds` inside `stage`; false where it had left the stage by then,
// and then it runs to its end.
bool kill_inside(const std::string& stage, const fs::path& run, double seconds) {
  fs::remove(run / "STATUS");  // it is for people: what is done follows from the stages' folders
  Running running(convert(run, true));
  wait_for(stage, run, running);
  std::this_thread::sleep_for(std::chrono::duration<double>(seconds));
  if (running.alive() && running_stage(run) == stage) running.send(SIGKILL);
  const Outcome outcome = running.wait();
  if (outcome.signal == SIGKILL) return running_stage(run) == stage;
  EXPECT_EQ(outcome.code, 0) << outcome.err;
  return false;
}

bool left_something_half_done(const fs::path& run) {
  for (const auto& entry : fs::recursive_directory_iterator(run)) {
    if (entry.path().extension() == ".tmp") return true;
  }
  return false;
}

TEST(RandomKills, DISABLED_EveryStageResumesToTheSameBits) {
  const fs::path run = World::get().path("random-kills");
  Words stages = kStages;
  stages.push_back("eval");
  for (const std::string& stage : stages) {
    const double length = seconds_of(stage, run);
    expect_same_record(run, World::get().reference());
    const Random random(1, "random kills " + stage);
    int64_t kills = 0, compared = 0, half_done = 0;
    for (uint64_t attempt = 0; kills < kKills; ++attempt) {
      ASSERT_LT(attempt, 20 * kKills) << stage << " ends before it can be killed";
      // A finished run is compared and begun anew; one that was killed is killed again.
      if (fs::exists(run / "summary.json")) go_back_to(stage, run);
      if (kill_inside(stage, run, random.uniform(attempt) * length)) {
        ++kills;
        half_done += left_something_half_done(run);
        if (kills < kKills) continue;
        const Outcome last = run_halo(convert(run, true));
        ASSERT_EQ(last.code, 0) << last.err;
      }
      if (!fs::exists(run / "summary.json")) continue;  // killed as it left the stage
      ++compared;
      expect_same_record(run, World::get().reference());
      ASSERT_FALSE(HasFailure()) << stage << " after " << kills << " kills";
    }
    std::cout << fmt::format(
                     "{:<16} {:5.2f} s long, {} kills, {} of them left something half done, {} "
                     "finished runs compared",
                     stage, length, kills, half_done, compared)
              << std::endl;
  }
}

}  // namespace
}  // namespace halo::system_test
