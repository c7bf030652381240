// Whatever is done to a run folder in whatever order - stages alone, kills, stops, resumes, recipe
// edits, other shards, another teacher -, RUN/model is that of a run from nothing of the recipe
// that the folder shows, bit for bit, or `halo status` says that it is stale.
//   HALO_INTERLEAVINGS=2000 build/tests/system_test --gtest_filter='Interleavings.*'
// Several processes share many of them: HALO_FIRST_INTERLEAVING=500 leaves out those before.
// A command is a child of this process, made by fork: loading the program anew would take most of
// the time. So this process never computes anything itself.
#include <gtest/gtest.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/wait.h>

#include <algorithm>
#include <chrono>
#include <iostream>
#include <thread>

#include "halo/base/files.h"
#include "halo/base/random.h"
#include "halo/pipeline/convert.h"
#include "halo/pipeline/run_folder.h"
#include "halo/pipeline/status.h"
#include "tests/asked.h"
#include "tests/processes.h"
#include "tests/system/tiny_world.h"

namespace halo::system_test {
namespace {

// Each is set to one of its values, by which a run from nothing ends in other bits (the gate and
// checkpoint_every apart).
const std::vector<std::pair<std::string, Words>> kEdits = {
    {"run.seed", {"3", "4"}},
    {"align.learning_rate", {"1e-3", "2e-3"}},
    {"align_attention.tokens", {"96", "0"}},
    {"select.layers", {"[0]", "[1]"}},
    {"distill.tokens", {"288", "192"}},
    {"distill.cross_entropy_share", {"0.0", "0.5"}},
    {"distill.checkpoint_every", {"1", "0"}},
    {"finetune.tokens", {"96", "0"}},
    {"on_policy.divergence", {"reverse", "forward"}},
    {"on_policy.tokens", {"96", "0"}},
    {"scale.candidates", {"[500]", "[400]"}},
    {"gates.distill_kl", {"1e9", "1e-9"}}};

// Whether the child has ended, which it goes on to be asked about.
bool has_ended(pid_t process) {
  siginfo_t ended{};
  return waitid(P_PID, process, &ended, WEXITED | WNOHANG | WNOWAIT) == 0 &&
         ended.si_pid == process;
}

// Runs `command` in a child: its exit code. `kill_after` so many seconds, unless it has ended
// before: with this signal.
int in_child(const std::function<void()>& command, const fs::path& log, int signal = 0,
             double kill_after = 0) {
  const pid_t process = test::start_child(log, command);
  if (signal != 0) {
    using Clock = std::chrono::steady_clock;
    const auto end = Clock::now() + std::chrono::duration_cast<Clock::duration>(
                                        std::chrono::duration<double>(kill_after));
    while (!has_ended(process) && Clock::now() < end) {
      std::this_thread::sleep_for(
          std::min<Clock::duration>(std::chrono::milliseconds(1), end - Clock::now()));
    }
    kill(process, signal);
  }
  return test::wait_for(process);
}

class Interleavings : public testing::Test {
 protected:
  // A random command on the folder.
  void act(const Random& random, uint64_t& n) {
    const auto below = [&](int64_t limit) { return random.below(n++, limit); };
    switch (below(8)) {
      case 0:
      case 1: {  // an edit of the recipe
        const auto& [key, values] = kEdits[below(kEdits.size())];
        set_setting(recipe_, key + "=" + values[below(values.size())]);
        return;
      }
      case 2:
        world_.touch(below(2) == 0, below(2));
        return;
      case 3: {
        const Stage& stage = pipeline_stages()[below(kStages.size())];
        Words set;
        if (below(3) == 0) {
          const auto& [key, values] = kEdits[below(kEdits.size())];
          set.push_back(key + "=" + values[below(values.size())]);
        }
        run(
            [&] {
              convert_stage(read_recipe(run_ / kResolvedRecipe, set), {run_, true, "halo convert"},
                            stage);
            },
            random, n);
        return;
      }
      case 4: {
        const std::string stage = kStages[below(kStages.size())];
        run([&] { convert(recipe_, {run_, true, "halo convert", stage}); }, random, n);
        return;
      }
      default:
        run([&] { convert(recipe_, {run_, true, "halo convert"}); }, random, n);
    }
  }

  // Killed or stopped at a random moment in two of three cases.
  void run(const std::function<void()>& command, const Random& random, uint64_t& n) {
    const int64_t how = random.below(n++, 3);
    const int signal = how == 0 ? 0 : how == 1 ? SIGKILL : SIGTERM;
    const int code = in_child(command, log(), signal, random.uniform(n++) * seconds_);
    ++commands_;
    const bool known = code == 0 || code == 1 || code == 3 || code == 4 || code == -SIGKILL ||
                       (code == -SIGTERM && signal == SIGTERM);  // before the handler was there
    ASSERT_TRUE(known) << code << ": " << read_file(log());
  }

  // A run from nothing of a recipe, with the teacher and text of now.
  fs::path fresh(Recipe recipe) {
    recipe.gates.distill_kl = 1e9;
    recipe.distill.checkpoint_every = 1;
    const std::string key = world_.versions() + to_toml(recipe);
    const auto found = fresh_.find(key);
    if (found != fresh_.end()) return found->second;
    const fs::path folder = world_.path(fmt::format("fresh-{}", fresh_.size()));
    const auto start = std::chrono::steady_clock::now();
    const int code = in_child([&] { convert(recipe, {folder, false, "halo convert"}); }, log());
    seconds_ = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
    EXPECT_EQ(code, 0) << read_file(log());
    return fresh_[key] = folder;
  }

  // Whether the folder says that its model is stale; else the model is compared.
  bool is_stale_or_right() {
    const fs::path answer = world_.path("status.json");
    EXPECT_EQ(in_child([&] { write_json(answer, run_status(run_)); }, log()), 0)
        << read_file(log());
    const json::object status = read_json(answer).as_object();
    EXPECT_FALSE(status.contains("process"));
    EXPECT_NE(status.at("state"), "running");
    const bool figures_only =
        status.contains("stale") && status.at("stale").at("what") == "summary.json";
    if (status.contains("stale") && !figures_only) return true;
    const fs::path expected = fresh(read_recipe(run_ / kResolvedRecipe, {}));
    auto got = record(run_), right = record(expected);
    const auto is_of_stage = [&](const auto& item) { return !item.first.starts_with("model/"); };
    if (figures_only) {
      std::erase_if(got, is_of_stage);
      std::erase_if(right, is_of_stage);
    } else {  // what is there of stages that the recipe does not want is nobody's business
      std::erase_if(
          got, [&](const auto& item) { return is_of_stage(item) && item.first != "summary.json"; });
      std::erase_if(right, [&](const auto& item) {
        return is_of_stage(item) && item.first != "summary.json";
      });
    }
    EXPECT_GT(right.size(), 2u);
    EXPECT_TRUE(got == right) << expected;
    return false;
  }

  fs::path log() const { return world_.path("log"); }

  TinyWorld world_;
  Recipe recipe_ = world_.recipe();
  fs::path run_;
  std::map<std::string, fs::path> fresh_;
  double seconds_ = 1;  // that a whole run takes
  int64_t commands_ = 0;
};

TEST_F(Interleavings, TheModelIsThatOfTheRecipeOrIsSaidToBeStale) {
  const int64_t first = test::asked("HALO_FIRST_INTERLEAVING", 0);
  const int64_t number = test::asked("HALO_INTERLEAVINGS", 200);
  fresh(with_absolute_paths(recipe_));
  ASSERT_FALSE(HasFailure());
  int64_t stale = 0, refused = 0;
  for (int64_t i = first; i < first + number && !HasFailure(); ++i) {
    SCOPED_TRACE(fmt::format("interleaving {}", i));
    const Random random(1, "interleavings", static_cast<uint64_t>(i));
    uint64_t n = 0;
    run_ = world_.path(fmt::format("run-{}", i));
    recipe_ = world_.recipe();
    // From a finished run, or from nothing.
    if (random.below(n++, 4) > 0) {
      const auto from = std::next(fresh_.begin(), random.below(n++, fresh_.size()));
      fs::copy(from->second, run_, fs::copy_options::recursive);
    }
    const int64_t actions = 1 + random.below(n++, 5);
    for (int64_t k = 0; k < actions && !HasFatalFailure(); ++k) act(random, n);
    if (!fs::exists(run_ / kResolvedRecipe)) continue;
    stale += is_stale_or_right();
    // The way out that is said: resume, and where that is refused begin anew.
    recipe_ = read_recipe(run_ / kResolvedRecipe, {"gates.distill_kl=1e9"});
    if (in_child([&] { convert(recipe_, {run_, true, "halo convert"}); }, log()) != 0) {
      ++refused;
      EXPECT_NE(read_file(log()).find(" --from "), std::string::npos) << read_file(log());
      EXPECT_EQ(in_child(
                    [&] {
                      convert(recipe_, {run_, true, "halo convert", "transfer"});
                    },
                    log()),
                0)
          << read_file(log());
    }
    EXPECT_FALSE(is_stale_or_right()) << read_file(log());
    fs::remove_all(run_);
  }
  std::cout << fmt::format(
      "{} interleavings of {} commands, {} of them ended with a stale model, {} refused to resume; "
      "{} runs from nothing of {:.2f} s\n",
      number, commands_, stale, refused, fresh_.size(), seconds_);
  if (number >= 40) {
    EXPECT_GT(stale, 0);
    EXPECT_GT(refused, 0);
  }
}

}  // namespace
}  // namespace halo::system_test
