// Several ranks beside one: every stage that trains, on threads; then whole conversions by
// `halo launch`, whose ranks are processes and die.
#include "halo/runtime/ranks.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <unistd.h>

#include <array>
#include <chrono>
#include <cmath>
#include <fstream>
#include <thread>

#include "ATen/ATen.h"
#include "halo/base/check.h"
#include "halo/base/files.h"
#include "halo/pipeline/convert.h"
#include "halo/pipeline/evaluate.h"
#include "halo/stages/choose_layers.h"
#include "tests/system/world.h"

namespace halo::system_test {
namespace {

using testing::HasSubstr;

std::vector<json::object> metrics_of(const fs::path& stage) {
  std::vector<json::object> lines;
  std::ifstream file(stage / "metrics.jsonl");
  for (std::string line; std::getline(file, line);) {
    lines.push_back(parse_json(line, "metrics").as_object());
  }
  return lines;
}

// Losses and norms, as text of all their bits.
std::string curve_of(const fs::path& stage) {
  std::string text;
  for (const json::object& line : metrics_of(stage)) {
    text += fmt::format("{} {}\n", line.at("loss").as_double(), line.at("grad_norm").as_double());
  }
  return text;
}

// The world's recipe with eight rows and ten steps in every stage.
Recipe recipe_of_eight_rows() {
  Words set;
  for (const char* section : {"align", "align_attention", "distill", "finetune", "on_policy"}) {
    for (const char* setting : {"sequence_length=128", "tokens_per_step=1024", "tokens=10240",
                                "micro_batch_rows=3", "checkpoint_every=0"}) {
      set.push_back(fmt::format("{}.{}", section, setting));
    }
  }
  set.push_back("data.long_context=\"concat\"");
  return read_recipe(World::get().recipe(), set);
}

// The largest relative difference of two losses of a step; of stage on-policy the first step's,
// for what it writes takes another turn where the last bits of a weight are others.
double difference(const fs::path& stage, const fs::path& other, bool is_on_policy = false) {
  const auto a = metrics_of(stage), b = metrics_of(other);
  EXPECT_EQ(a.size(), b.size());
  double worst = 0;
  for (size_t i = 0; i < (is_on_policy ? 1 : std::min(a.size(), b.size())); ++i) {
    worst =
        std::max(worst, std::abs(a[i].at("loss").as_double() / b[i].at("loss").as_double() - 1));
  }
  return worst;
}

TEST(Ranks, EveryStageTrainsAsOnOneRank) {
  const Recipe recipe = recipe_of_eight_rows();
  const auto stages = pipeline_stages();
  for (const Stage& stage : stages) {
    if (!stage.training) continue;
    const bool is_on_policy = stage.name == "on-policy";
    const StageArgs in_run = args_in_run(stages, stage, recipe, World::get().reference());
    const auto train_on = [&](int64_t n, Shard shard) {
      Recipe on = recipe;
      on.run.shard = shard;
      StageArgs args = in_run;
      args.out = World::get().folder(stage.name) / "out";
      run_threads(n, 120, [&](Communicator& ranks) { run_stage(on, stage, args, ranks); });
      return args.out;
    };
    const fs::path one = train_on(1, Shard::kNone);
    ASSERT_EQ(metrics_of(one).size(), 10u);
    for (const int64_t n : {2, 4, 8}) {
      SCOPED_TRACE(fmt::format("{} on {} ranks", stage.name, n));
      const fs::path several = train_on(n, Shard::kNone);
      const double worst = difference(several, one, is_on_policy);
      EXPECT_LE(worst, 1e-6);
      RecordProperty(fmt::format("{}-{}", stage.name, n), fmt::format("{:.2g}", worst));
      for (const Shard shard : {Shard::kOptimizer, Shard::kFull}) {
        SCOPED_TRACE(word_of<Shard>(kShards, shard));
        const fs::path sharded = train_on(n, shard);
        if (shard == Shard::kFull && n == 2) {  // two micro-batches of a rank
          EXPECT_LE(difference(sharded, one, is_on_policy), 1e-6);
          continue;
        }
        EXPECT_EQ(curve_of(sharded), curve_of(several)) << "the same bits with its own part each";
        for (const char* file : {"model", "state/masters", "state/moment1", "state/moment2"}) {
          const std::string path = fmt::format("step-10/{}.safetensors", file);
          EXPECT_EQ(hash_file(sharded / path), hash_file(several / path)) << path;
        }
      }
    }
  }
}

// More ranks than layers too: some then have none.
TEST(Ranks, DivideTheLayersOfStageOne) {
  Recipe recipe = recipe_of_eight_rows();
  recipe.align.micro_batch_rows = recipe.align_attention.micro_batch_rows = 8;
  const auto stages = pipeline_stages();
  for (const char* name : {"align", "align-attention"}) {
    const Stage& stage = find_stage(stages, name);
    const StageArgs in_run = args_in_run(stages, stage, recipe, World::get().reference());
    const auto train_on = [&](int64_t n, Split split, Shard shard) {
      Recipe on = recipe;
      on.align.split = on.align_attention.split = split;
      on.run.shard = shard;
      StageArgs args = in_run;
      args.out = World::get().folder(stage.name) / "out";
      run_threads(n, 120, [&](Communicator& ranks) { run_stage(on, stage, args, ranks); });
      return args.out;
    };
    const auto variance = [](const fs::path& out) {
      return json::value_to<std::vector<double>>(
          read_json(out / "result.json").at("explained_variance"));
    };
    const fs::path one = train_on(1, Split::kRows, Shard::kNone);
    for (const int64_t n : {1, 2, 4, 8}) {
      SCOPED_TRACE(fmt::format("{} on {} ranks", name, n));
      const fs::path several = train_on(n, Split::kLayers, Shard::kNone);
      const double worst = difference(several, one);
      EXPECT_LE(worst, 1e-6);
      RecordProperty(fmt::format("{}-layers-{}", name, n), fmt::format("{:.2g}", worst));
      ASSERT_EQ(variance(several).size(), variance(one).size());
      for (size_t layer = 0; layer < variance(one).size(); ++layer) {
        EXPECT_NEAR(variance(several)[layer], variance(one)[layer], 1e-5);
      }
      // What ranks do not have between them changes nothing.
      const fs::path fetched = train_on(n, Split::kLayers, Shard::kFull);
      EXPECT_EQ(curve_of(fetched), curve_of(several));
      for (const char* file : {"model", "state/masters", "state/moment1", "state/moment2"}) {
        const std::string path = fmt::format("step-10/{}.safetensors", file);
        EXPECT_EQ(hash_file(fetched / path), hash_file(several / path)) << path;
      }
    }
  }
}

// Candidates of the selection and the scale, haystacks and text of the evaluation: whoever does
// them, nothing depends on it.
TEST(Ranks, MeasureTogetherToTheSameBits) {
  const auto stages = pipeline_stages();
  const std::vector<std::pair<std::string, Words>> cases = {{"select", {"select.rule=\"kl\""}},
                                                            {"select", {"select.rule=\"probe\""}},
                                                            {"select", {"select.rule=\"even\""}},
                                                            {"scale", {"scale.refine=1"}}};
  for (const auto& [name, set] : cases) {
    SCOPED_TRACE(fmt::format("{} {}", name, fmt::join(set, " ")));
    Recipe recipe = read_recipe(World::get().recipe(), set);
    recipe.run.threads = 1;
    const Stage& stage = find_stage(stages, name);
    const StageArgs in_run = args_in_run(stages, stage, recipe, World::get().reference());
    const bool selects = stage.name == "select";
    const auto measure_on = [&](int64_t n) {
      StageArgs args = in_run;
      args.gate = selects ? 1e9 : 0;
      args.out = World::get().folder(stage.name) / "out";
      run_threads(n, 120, [&](Communicator& ranks) { run_stage(recipe, stage, args, ranks); });
      std::string all = read_file(args.out / "result.json");
      all += read_file(args.out / (selects ? "selection.json" : "scale.json"));
      return all + read_file(args.out / "step-0/config.json") +
             hash_file(args.out / "step-0/model.safetensors");
    };
    const std::string one = measure_on(1);
    for (const int64_t n : {2, 3}) EXPECT_EQ(measure_on(n), one) << n << " ranks";
  }
}

// Rules whose teacher must find needles, which the world's does not.
TEST(Ranks, ChooseLayersTogetherToTheSameBits) {
  const std::vector<Words> rules = {{"select.rule=\"joint\""},
                                    {"select.rule=\"joint\"", "select.max_sets=1"},
                                    {"select.rule=\"recall-ratio\""},
                                    {"select.rule=\"gate\"", "select.gate_tokens=4096"}};
  for (const Words& rule : rules) {
    SCOPED_TRACE(fmt::format("{}", fmt::join(rule, " ")));
    Recipe recipe = read_recipe(World::get().recipe(), rule);
    recipe.run.threads = 1;
    const auto choose_on = [&](int64_t n) {
      StageArgs args;
      args.name = "select";
      args.out = World::get().folder("choose");
      std::vector<json::object> choices(n);
      run_threads(n, 120, [&](Communicator& ranks) {
        at::NoGradGuard no_grad;
        const StageContext context(context_settings(recipe), ranks);
        const auto load = [&](const char* stage) {
          return context.load_student(stage_model(World::get().reference() / stage), at::kCPU);
        };
        const Model aligned = load("align"), attention = load("align-attention");
        const Candidates candidates(recipe.select, context, aligned.weights, attention.weights);
        const LayerChoice choice =
            choose_layers(recipe.select, candidates, context, /*keep=*/2, args);
        choices[ranks.rank()] = {{"layers", json::value_from(choice.layers)},
                                 {"scores", json::value_from(choice.scores)},
                                 {"frequency", json::value_from(choice.frequency)},
                                 {"candidates", choice.candidates}};
      });
      for (const json::object& choice : choices) EXPECT_EQ(choice, choices.front());
      EXPECT_EQ(choices.front().at("layers").as_array().size(), 2u);
      return json::serialize(choices.front());
    };
    const std::string one = choose_on(1);
    for (const int64_t n : {2, 3}) EXPECT_EQ(choose_on(n), one) << n << " ranks";
  }
}

TEST(Ranks, EvaluateTogetherToTheSameBits) {
  Recipe recipe = read_recipe(World::get().recipe(),
                              {"eval.haystacks=9", "eval.lengths=[256,2048]",
                               "eval.held_out_tokens=30000", "eval.position_documents=5"});
  recipe.run.threads = 1;
  const auto evaluate_on = [&](int64_t n, Shard shard) {
    Recipe on = recipe;
    on.run.shard = shard;
    json::object figures;
    run_threads(n, 120, [&](Communicator& ranks) {
      const StageContext context(context_settings(on), ranks);
      json::object all = evaluate(on.eval, context, World::get().reference() / "model");
      if (ranks.is_first()) figures = std::move(all);
    });
    for (const char* model : {"teacher", "student"}) {  // times
      EXPECT_FALSE(figures.at(model).at("decode").as_object().empty());
      figures.at(model).as_object().erase("decode");
    }
    return json::serialize(figures);
  };
  const std::string one = evaluate_on(1, Shard::kNone);
  for (const int64_t n : {2, 3}) {
    EXPECT_EQ(evaluate_on(n, Shard::kNone), one);
    EXPECT_EQ(evaluate_on(n, Shard::kFull), one);
  }
}

// Stage 3 alone, each row shared by two ranks, on a run of so many.
Process shared_rows(int ranks, const fs::path& out, const std::string& shard = "none") {
  Words words = {"finetune",
                 "--recipe",
                 World::get().recipe().string(),
                 "--student",
                 stage_model(World::get().reference() / "distill").string(),
                 "--out",
                 out.string(),
                 "--ranks",
                 fmt::format("{}", ranks),
                 "--shard",
                 shard};
  for (const char* setting : {"sequence_length=128", "tokens_per_step=1024", "tokens=10240",
                              "micro_batch_rows=3", "checkpoint_every=2"}) {
    words.insert(words.end(), {"--set", fmt::format("finetune.{}", setting)});
  }
  words.insert(words.end(), {"--set", "data.long_context=\"concat\""});
  if (ranks > 1) words.insert(words.end(), {"--set", "finetune.context_ranks=2"});
  return {words};
}

TEST(Ranks, ThatShareRowsTrainAsOne) {
  const auto train_on = [&](int ranks, const std::string& shard = "none",
                            const std::string& crash_at = "") {
    const fs::path out = World::get().folder("shared-rows") / "out";
    if (!crash_at.empty()) {
      Process killed = shared_rows(ranks, out, shard);
      killed.crash_at = crash_at;
      EXPECT_EQ(run_halo(killed).signal, SIGKILL);
    }
    const Outcome outcome = run_halo(shared_rows(ranks, out, shard));
    EXPECT_EQ(outcome.code, 0) << outcome.err;
    return out;
  };
  const auto want = metrics_of(train_on(1));
  ASSERT_EQ(want.size(), 10u);
  for (const int ranks : {2, 4}) {
    SCOPED_TRACE(fmt::format("{} ranks", ranks));
    const fs::path out = train_on(ranks);
    const auto got = metrics_of(out);
    ASSERT_EQ(got.size(), want.size());
    const auto expect_near = [&](size_t i, const char* figure) {
      const double a = got[i].at(figure).as_double(), b = want[i].at(figure).as_double();
      EXPECT_NEAR(a, b, 1e-6 * b) << figure << " of step " << i + 1;
    };
    for (size_t i = 0; i < got.size(); ++i) expect_near(i, "loss");
    expect_near(0, "grad_norm");  // before any update: AdamW divides small ones by themselves
    // The same bits after a kill, and with the optimizer's state in parts. With "full"
    // micro-batches are added up in another order.
    const std::string kill = fmt::format("train.mid_step:{}", 5 * ranks);
    EXPECT_LE(difference(train_on(ranks, "full", kill), out), 1e-6);
    for (const fs::path& other : {train_on(ranks, "none", kill), train_on(ranks, "optimizer")}) {
      EXPECT_EQ(curve_of(other), curve_of(out));
      for (const char* file : {"model", "state/masters", "state/moment1", "state/moment2"}) {
        const std::string path = fmt::format("step-10/{}.safetensors", file);
        EXPECT_EQ(hash_file(other / path), hash_file(out / path)) << path;
      }
    }
  }
  Process wrong = shared_rows(4, World::get().folder("shared-rows") / "out");
  wrong.arguments.back() = "finetune.context_ranks=3";
  expect_error(run_halo(wrong), 1,
               {"finetune.context_ranks", "3 does not divide the 4 ranks of the run; 2 and 4 do"});
  wrong.arguments.back() = "finetune.context_ranks=4";
  expect_error(run_halo(wrong), 1,
               {"finetune.context_ranks: 4 ranks cannot share the 2 query and 1 key/value heads",
                "1, 2 can"});
}

// The world's conversion on two processes.
Process launched(const fs::path& run, const Words& launch_options, const Words& options = {}) {
  Words words = {"launch", "-n", "2"};
  words.insert(words.end(), launch_options.begin(), launch_options.end());
  words.push_back("--");
  const Words convert_words = convert(run, fs::exists(run)).arguments;
  words.insert(words.end(), convert_words.begin(), convert_words.end());
  words.insert(words.end(), options.begin(), options.end());
  return {words};
}

// Of two threads, which nothing disturbed.
const fs::path& two_ranks() {
  static const fs::path run = [] {
    const fs::path folder = World::get().path("two-ranks");
    Process process = convert(folder, false);
    process.arguments.insert(process.arguments.end(), {"--ranks", "2", "--shard", "optimizer"});
    const Outcome outcome = run_halo(process);
    EXPECT_EQ(outcome.code, 0) << outcome.err;
    return folder;
  }();
  return run;
}

std::vector<int> children_of(int process) {
  std::ifstream file(fmt::format("/proc/{0}/task/{0}/children", process));
  std::vector<int> out;
  for (int child; file >> child;) out.push_back(child);
  return out;
}

// The processes that the launcher, the only one that this test has started, has started.
std::vector<int> ranks_there_are() {
  std::vector<int> out;
  for (const int child : children_of(getpid())) out = children_of(child);
  return out;
}

// Waits for `sign` of the run and that both ranks are there; returns their process ids.
std::vector<int> ranks_at(const fs::path& sign) {
  for (int i = 0; i < 30'000; ++i) {
    const std::vector<int> ranks = ranks_there_are();
    std::error_code absent;
    const auto bytes = fs::file_size(sign, absent);  // a line, after the first step
    if (!absent && bytes > 0 && ranks.size() == 2) return ranks;
    std::this_thread::sleep_for(std::chrono::milliseconds(2));
  }
  ADD_FAILURE() << sign << " did not come";
  return {};
}

// A whole conversion, with stages between that the first rank runs alone.
TEST(Ranks, PartsOfAllWeightsGiveTheSameBits) {
  const fs::path run = World::get().path("full-ranks");
  Process process = convert(run, false);
  process.arguments.insert(process.arguments.end(), {"--ranks", "2", "--shard", "full"});
  const Outcome outcome = run_halo(process);
  ASSERT_EQ(outcome.code, 0) << outcome.err;
  expect_same_record(run, two_ranks());
}

TEST(Ranks, ProcessesGiveTheBitsOfThreads) {
  const fs::path run = World::get().path("launched");
  const Outcome outcome = run_halo(launched(run, {}));
  ASSERT_EQ(outcome.code, 0) << outcome.err;
  EXPECT_THAT(outcome.out, HasSubstr("student: "));
  EXPECT_EQ(outcome.out.find("student: "), outcome.out.rfind("student: ")) << "said once";
  expect_same_record(run, two_ranks());
}

// Either rank, in every stage that trains: all start again and come to the same bits.
TEST(Ranks, OneThatIsKilledCostsNoMoreThanAnInterval) {
  for (const int victim : {0, 1}) {
    const fs::path run = World::get().path(fmt::format("killed-rank-{}", victim));
    Running running(launched(run, {"--max-restarts", "5"}, {"--shard", "optimizer"}));
    for (const char* stage : {"align", "align-attention", "distill", "finetune", "on-policy"}) {
      const std::vector<int> ranks = ranks_at(run / stage / "metrics.jsonl");
      ASSERT_EQ(ranks.size(), 2u);
      kill(ranks[victim], SIGKILL);
      // The next start's processes are others.
      while (running.alive() && ranks_there_are() == ranks) {
        std::this_thread::sleep_for(std::chrono::milliseconds(5));
      }
    }
    const Outcome outcome = running.wait();
    EXPECT_EQ(outcome.code, 0) << outcome.err;
    EXPECT_THAT(outcome.err, HasSubstr("ended by signal 9"));
    EXPECT_THAT(outcome.err, HasSubstr("start 6 of 6 goes on from the newest checkpoint"));
    expect_same_record(run, two_ranks());
  }
}

std::vector<int> both_ranks() {
  std::vector<int> ranks;
  while ((ranks = ranks_there_are()).size() < 2) {
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }
  return ranks;
}

// Waits until both ranks are there and the run is at the stage, or has trained a step in it where
// it trains; returns their process ids.
std::vector<int> ranks_in(const fs::path& run, const std::string& stage) {
  if (find_stage(pipeline_stages(), stage).training) {
    return ranks_at(run / stage / "metrics.jsonl");
  }
  for (int i = 0; i < 30'000; ++i) {
    const std::vector<int> ranks = ranks_there_are();
    if (ranks.size() == 2 && running_stage(run) == stage) return ranks;
    std::this_thread::sleep_for(std::chrono::milliseconds(2));
  }
  ADD_FAILURE() << run << " did not come to " << stage;
  return {};
}

// Whether it trains, works while the other waits, or waits itself.
TEST(Ranks, OneThatIsStoppedEndsTheRunWithFive) {
  const fs::path run = World::get().path("hung-ranks");
  const std::pair<const char*, int> victims[] = {{"transfer", 0}, {"align", 1},   {"select", 0},
                                                 {"select", 1},   {"distill", 0}, {"scale", 0},
                                                 {"scale", 1}};
  for (const auto& [stage, victim] : victims) {
    SCOPED_TRACE(fmt::format("rank {} in {}", victim, stage));
    for (const char* left : {"ranks", "STATUS"}) fs::remove_all(run / left);
    Running running(launched(run, {}, {"--shard", "optimizer", "--rank-seconds", "2"}));
    const std::vector<int> ranks = ranks_in(run, stage);
    ASSERT_EQ(ranks.size(), 2u);
    kill(ranks[victim], SIGSTOP);
    const Outcome outcome = running.wait();
    EXPECT_EQ(outcome.code, 5) << outcome.err;
    EXPECT_THAT(outcome.err, HasSubstr(fmt::format("rank {} ", victim)));
    EXPECT_THAT(outcome.err, HasSubstr("for 2 seconds (run.rank_seconds)"));
    EXPECT_TRUE(fs::exists(run / fmt::format("ranks/rank-{}.jsonl", 1 - victim)));
  }
  const Outcome resumed = run_halo(launched(run, {}, {"--shard", "optimizer"}));
  EXPECT_EQ(resumed.code, 0) << resumed.err;
  expect_same_record(run, two_ranks());
}

// To the launcher, one rank or all of them, in every stage and while the ranks start: all save
// once, and go on to the same bits.
TEST(Ranks, ASignalToOneOrToAllSavesOnce) {
  const fs::path run = World::get().path("told-ranks");
  int turn = 0;
  for (const std::string& stage : kStages) {
    for (const bool at_start : {false, true}) {
      const int signal = std::array{SIGTERM, SIGUSR1, SIGINT}[turn % 3];
      const int told = turn++ % 4;
      SCOPED_TRACE(fmt::format("signal {} in {}, at its start: {}, told: {}", signal, stage,
                               at_start, told));
      Running running(launched(run, {"--max-restarts", "3"}, {"--shard", "optimizer"}));
      const std::vector<int> ranks = at_start ? both_ranks() : ranks_in(run, stage);
      ASSERT_EQ(ranks.size(), 2u);
      if (told == 0) running.send(signal);
      if (told == 1 || told == 3) kill(ranks[0], signal);
      if (told == 2 || told == 3) kill(ranks[1], signal);
      const Outcome outcome = running.wait();
      EXPECT_EQ(outcome.code, 3) << outcome.err;
      EXPECT_THAT(outcome.err, HasSubstr("stop"));
      EXPECT_THAT(read_file(run / "STATUS"), testing::StartsWith("stopped "));
    }
  }
  const Outcome last = run_halo(launched(run, {}, {"--shard", "optimizer"}));
  EXPECT_EQ(last.code, 0) << last.err;
  expect_same_record(run, two_ranks());
}

// A run of two goes on as one, and of one as two; the figures are those of the order of sums.
TEST(Ranks, AnotherNumberGoesOn) {
  const fs::path run = World::get().path("changed-ranks");
  {
    Running running(launched(run, {}, {"--shard", "full"}));
    ranks_at(run / "distill/metrics.jsonl");
    running.send(SIGTERM);
    EXPECT_EQ(running.wait().code, 3);
  }
  const Outcome alone = run_halo(convert(run, true));
  EXPECT_EQ(alone.code, 0) << alone.err;
  EXPECT_THAT(alone.err, HasSubstr("resumed with ranks 1 where the checkpoint has 2"));
  // What stage on-policy writes takes another turn where the last bits of a weight are others.
  for (const char* stage : {"distill", "finetune"}) {
    const auto got = metrics_of(run / stage), want = metrics_of(two_ranks() / stage);
    ASSERT_EQ(got.size(), want.size());
    for (size_t i = 0; i < got.size(); ++i) {
      const double loss = want[i].at("loss").as_double();
      EXPECT_NEAR(got[i].at("loss").as_double(), loss, 1e-4 * loss);
    }
  }
}

// Four ranks, killed between two checkpoints: any number goes on, for 100 steps in all.
TEST(Ranks, AHundredStepsOnAnotherNumberAreTheSame) {
  const auto process = [](int ranks, const fs::path& out) {
    Words words = {"distill",
                   "--recipe",
                   World::get().recipe().string(),
                   "--teacher",
                   World::get().teacher().string(),
                   "--student",
                   stage_model(World::get().reference() / "select").string(),
                   "--out",
                   out.string(),
                   "--ranks",
                   fmt::format("{}", ranks),
                   "--shard",
                   "optimizer"};
    for (const char* section : {"align", "align_attention", "distill", "finetune", "on_policy"}) {
      for (const char* setting : {"sequence_length=128", "tokens_per_step=1024", "tokens=102400",
                                  "micro_batch_rows=8", "checkpoint_every=20"}) {
        words.insert(words.end(), {"--set", fmt::format("{}.{}", section, setting)});
      }
    }
    return Process{words};
  };
  const auto train_on = [&](int ranks, bool after_a_kill) {
    const fs::path out = World::get().folder("hundred-steps") / "out";
    if (after_a_kill) {
      Process killed = process(4, out);
      killed.crash_at = fmt::format("train.mid_step:{}", 45 * 4);
      EXPECT_EQ(run_halo(killed).signal, SIGKILL);
      EXPECT_TRUE(fs::exists(out / "step-40"));
    }
    const Outcome outcome = run_halo(process(ranks, out));
    EXPECT_EQ(outcome.code, 0) << outcome.err;
    return out;
  };
  const fs::path unbroken = train_on(4, false);
  ASSERT_EQ(metrics_of(unbroken).size(), 100u);
  for (const int ranks : {2, 8}) {
    const double worst = difference(train_on(ranks, true), unbroken);
    EXPECT_LE(worst, 1e-4) << ranks << " ranks";
    RecordProperty(fmt::format("ranks-{}", ranks), fmt::format("{:.2g}", worst));
  }
  const fs::path again = train_on(4, true);
  EXPECT_EQ(curve_of(again), curve_of(unbroken));
  for (const char* file : {"model", "state/masters", "state/moment1", "state/moment2"}) {
    const std::string path = fmt::format("step-100/{}.safetensors", file);
    EXPECT_EQ(hash_file(again / path), hash_file(unbroken / path)) << path;
  }
}

TEST(Ranks, WhatIsWrongIsSaidOnce) {
  const fs::path run = World::get().path("wrong-ranks");
  expect_error(run_halo(launched(run, {}, {"--set", "align.tokens_per_step=768"})), 1,
               {"align.tokens_per_step", "2 ranks do not divide its 3 rows; 1 and 3 do"});
  Process full = launched(run, {}, {"--shard", "optimizer"});
  full.max_file_bytes = 100'000;
  expect_error(run_halo(full), 1, {"cannot"});
  expect_error(run_halo(Words{"launch", "-n", "2", "--", "convert", "nowhere.toml", "--run", "x"}),
               1, {"nowhere.toml"});
  EXPECT_EQ(run_halo(Words{"launch", "-n", "0", "--", "convert"}).code, 2);
  expect_error(run_halo(Words{"bench", "comm", "--ranks", "2", "--device", "cuda"}), 1,
               {"halo launch -n 2"});
}

}  // namespace
}  // namespace halo::system_test
