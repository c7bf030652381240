// The training loop on several ranks, which here are threads, each with a job of its own.
#include "halo/runtime/ranks.h"

#include <gmock/gmock.h>

#include <cmath>

#include "halo/base/stop.h"
#include "halo/train/job_testing.h"

namespace halo {
namespace {

using test::fingerprint;
using test::kStateFiles;
using test::read_lines;
using test::ToyJob;
using test::TrainTest;
using testing::HasSubstr;

namespace fs = std::filesystem;

constexpr double kNaN = std::numeric_limits<double>::quiet_NaN();
struct How {
  int64_t ranks = 1;
  Shard shard = Shard::kNone;
  ClipMode clip = ClipMode::kGlobal;
  at::ScalarType compute = at::kFloat;
  double weight_decay = 0;
};

class RanksTest : public TrainTest {
 protected:
  // Trains 8 steps (or 4 more where the folder has some) of 12 rows in `folder`.
  fs::path train_in(const std::string& folder, const How& how,
                    const std::function<void(ToyJob&, int64_t rank)>& change = {}) {
    const fs::path run = directory_ / folder;
    run_threads(how.ranks, 60, [&](Communicator& ranks) {
      ToyJob toy(run, how.compute, {&ranks, how.shard});
      toy.job.recipe.tokens_per_step = 48;
      toy.job.recipe.tokens = 8 * 48;
      toy.job.recipe.clip = 0.5;
      toy.job.recipe.clip_mode = how.clip;
      toy.job.recipe.weight_decay = how.weight_decay;
      if (change) change(toy, ranks.rank());
      train(toy.job);
    });
    return run;
  }

  static void expect_same_curve(const fs::path& run, const fs::path& other, double bound) {
    const auto lines = read_lines(run / "metrics.jsonl");
    const auto others = read_lines(other / "metrics.jsonl");
    ASSERT_EQ(lines.size(), others.size());
    for (size_t i = 0; i < lines.size(); ++i) {
      for (const char* key : {"loss", "grad_norm", "first", "second"}) {
        const double a = lines[i].at(key).as_double(), b = others[i].at(key).as_double();
        EXPECT_NEAR(a, b, bound * std::abs(b)) << key << " of step " << i + 1;
      }
    }
  }
};

TEST_F(RanksTest, TrainTheSameRowsAsOne) {
  const fs::path one = train_in("one", {.ranks = 1});
  for (const int64_t n : {2, 3, 4, 6, 12}) {
    SCOPED_TRACE(fmt::format("{} ranks", n));
    const fs::path run = train_in(fmt::format("ranks-{}", n), {.ranks = n});
    expect_same_curve(run, one, 1e-6);
    EXPECT_EQ(fingerprint(train_in(fmt::format("again-{}", n), {.ranks = n}), 8),
              fingerprint(run, 8));
  }
}

TEST_F(RanksTest, KeepTheirPartsToTheSameBits) {
  int64_t i = 0;
  for (const at::ScalarType compute : {at::kFloat, at::kBFloat16}) {
    for (const ClipMode clip : {ClipMode::kGlobal, ClipMode::kPerLayer}) {
      for (const double decay : {0.0, 0.1}) {
        How how{.ranks = 3, .clip = clip, .compute = compute, .weight_decay = decay};
        const fs::path whole = train_in(fmt::format("whole-{}", ++i), how);
        for (const Shard shard : {Shard::kOptimizer, Shard::kFull}) {
          how.shard = shard;
          const fs::path parts = train_in(
              fmt::format("parts-{}-{}", i, static_cast<int>(shard)), how,
              // Of each of two layers 64 elements; the last two ranks have nothing but padding.
              [](ToyJob& toy, int64_t) { EXPECT_EQ(toy.store.master().numel(), 128); });
          EXPECT_EQ(fingerprint(parts, 8), fingerprint(whole, 8)) << "variant " << i;
        }
      }
    }
  }
}

// Who fetches weights adds up the ranks' sums of micro-batches, the others each its own.
TEST_F(RanksTest, AddSeveralMicroBatchesUp) {
  const auto train_with = [&](const std::string& folder, Shard shard) {
    return train_in(folder, {.ranks = 3, .shard = shard},
                    [](ToyJob& toy, int64_t) { toy.job.recipe.micro_batch_rows = 1; });
  };
  const fs::path whole = train_with("whole", Shard::kNone);
  EXPECT_EQ(fingerprint(train_with("parts", Shard::kOptimizer), 8), fingerprint(whole, 8));
  expect_same_curve(train_with("fetched", Shard::kFull), whole, 1e-6);
}

// Stopped in the fifth step by a signal to one rank, then gone on with by another number of them.
TEST_F(RanksTest, AnyNumberGoesOnFromTheCheckpointOfAnother) {
  const fs::path unbroken = train_in("unbroken", {.ranks = 4, .shard = Shard::kOptimizer});
  for (const int64_t n : {1, 2, 4, 12}) {
    SCOPED_TRACE(fmt::format("{} ranks", n));
    const std::string folder = fmt::format("stopped-{}", n);
    EXPECT_EXIT(
        {
          install_stop_handler([](const std::string&) { std::_Exit(9); });
          try {
            train_in(folder, {.ranks = 4, .shard = Shard::kOptimizer},
                     [](ToyJob& toy, int64_t rank) { toy.signal_at = rank == 2 ? 5 : 0; });
          } catch (const Stopped& stopped) {
            std::fputs(stopped.what(), stderr);
            std::exit(3);
          }
        },
        ::testing::ExitedWithCode(3), "run it again");
    const fs::path run =
        train_in(folder, {.ranks = n, .shard = n == 2 ? Shard::kFull : Shard::kOptimizer});
    expect_same_curve(run, unbroken, 1e-4);
    if (n == 4) {
      EXPECT_EQ(fingerprint(run, 8), fingerprint(unbroken, 8));
    }
    bool said = false;
    for (const json::object& event : read_lines(run / "events.jsonl")) {
      said |= event.at("event") == "warning" &&
              event.at("text").as_string().find("resumed with ranks") != json::string::npos;
    }
    EXPECT_EQ(said, n != 4);
  }
}

TEST_F(RanksTest, ABadBatchOfOneIsLeftOutByAll) {
  for (const Shard shard : {Shard::kNone, Shard::kOptimizer, Shard::kFull}) {
    const fs::path run = train_in(fmt::format("bad-{}", static_cast<int>(shard)),
                                  {.ranks = 3, .shard = shard}, [](ToyJob& toy, int64_t rank) {
                                    if (rank == 2) {
                                      toy.gradient_factor[3] = toy.gradient_factor[8] = kNaN;
                                    }
                                    toy.job.recipe.checkpoint_every = 1;
                                    toy.job.recipe.keep_checkpoints = 10;
                                  });
    for (const char* file : kStateFiles) {
      EXPECT_NE(hash_file(run / "step-2" / file), hash_file(run / "step-4" / file)) << file;
      EXPECT_EQ(hash_file(run / "step-7" / file), hash_file(run / "step-8" / file)) << file;
    }
    EXPECT_FALSE(fs::exists(run / "step-3"));
    EXPECT_TRUE(read_lines(run / "metrics.jsonl").at(2).at("skipped").as_bool());
    EXPECT_FALSE(read_lines(run / "metrics.jsonl").at(3).at("skipped").as_bool());
  }
}

TEST_F(RanksTest, EndWithTheErrorOfOneOfThem) {
  for (const int64_t failing : {0, 1, 2}) {
    const std::string folder = fmt::format("failing-{}", failing);
    const std::string text = test::error_of([&] {
      train_in(folder, {.ranks = 3, .shard = Shard::kOptimizer}, [&](ToyJob& toy, int64_t rank) {
        if (rank != failing) return;
        const auto good = toy.job.forward_backward;
        toy.job.forward_backward = [good](const TrainBatch& batch, int64_t count) {
          if (batch.targets[0].item<int64_t>() == 4) throw_error("no memory for step 4");
          return good(batch, count);
        };
      });
    });
    EXPECT_EQ(text, "no memory for step 4");
    EXPECT_TRUE(fs::exists(directory_ / folder / "step-2"));
  }
}

TEST_F(RanksTest, ASlowOneIsLost) {
  const auto slow = [&] {
    run_threads(2, 0.3, [&](Communicator& ranks) {
      ToyJob toy(directory_ / "slow", at::kFloat, {&ranks});
      const auto good = toy.job.forward_backward;
      toy.job.forward_backward = [&, good](const TrainBatch& batch, int64_t count) {
        if (ranks.rank() == 1) std::this_thread::sleep_for(std::chrono::seconds(1));
        return good(batch, count);
      };
      train(toy.job);
    });
  };
  EXPECT_THROW(slow(), RankLost);
}

TEST_F(RanksTest, ThatDoNotDivideAStepAreRefused) {
  const auto error = [&](int64_t n) {
    TrainRecipe recipe;
    recipe.tokens_per_step = 12 * recipe.sequence_length;
    return test::error_of([&] { check_recipe(recipe, "align", n); });
  };
  EXPECT_EQ(error(4), "no error");
  EXPECT_THAT(error(5), HasSubstr("align.tokens_per_step: 5 ranks do not divide its 12 rows; 4 and "
                                  "6 do"));
  EXPECT_THAT(error(16), HasSubstr("16 ranks do not divide its 12 rows; 12 does"));
}

TEST_F(RanksTest, ThatCannotDivideLayersAreRefused) {
  const auto error = [&](int64_t ranks, int64_t micro_batch_rows) {
    TrainRecipe recipe;
    recipe.split = Split::kLayers;
    recipe.micro_batch_rows = micro_batch_rows;
    recipe.tokens_per_step = 12 * recipe.sequence_length;
    return test::error_of([&] { check_recipe(recipe, "align", ranks); });
  };
  EXPECT_EQ(error(4, 8), "no error");
  EXPECT_EQ(error(1, 3), "no error");
  EXPECT_THAT(error(4, 6), HasSubstr("align.micro_batch_rows: the 4 ranks, which divide the layers "
                                     "(split = \"layers\"), must divide the 6 rows too, to run "
                                     "the teacher on them; 8 rows would do"));
  EXPECT_THAT(error(8, 8), HasSubstr("align.tokens_per_step: 8 ranks do not divide its 12 rows; 6 "
                                     "and 12 do"));
}

TEST_F(RanksTest, ThatCannotShareRowsAreRefused) {
  const auto error = [&](int64_t ranks, int64_t context_ranks, int64_t length = 512) {
    TrainRecipe recipe;
    recipe.context_ranks = context_ranks;
    recipe.sequence_length = length;
    recipe.tokens_per_step = 12 * length;
    return test::error_of([&] { check_recipe(recipe, "finetune", ranks); });
  };
  EXPECT_EQ(error(8, 4), "no error");
  EXPECT_EQ(error(16, 16), "no error");
  EXPECT_THAT(error(8, 3), HasSubstr("finetune.context_ranks: 3 does not divide the 8 ranks of the "
                                     "run; 2 and 4 do"));
  EXPECT_THAT(error(1, 2),
              HasSubstr("2 ranks are to share a row, and the run has 1; start a multiple of "
                        "2 (`halo launch -n 2`"));
  EXPECT_THAT(error(3, 3), HasSubstr("3 does not divide the 512 tokens of a row"));
  EXPECT_THAT(error(10, 2), HasSubstr("10 ranks are 5 groups of 2 that share rows (context_ranks), "
                                      "which do not divide its 12 rows; 8 and 12 do"));
}

}  // namespace
}  // namespace halo
