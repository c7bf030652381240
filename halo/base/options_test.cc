#include "halo/base/options.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <CLI/CLI.hpp>

#include "halo/base/check.h"
#include "tests/testing.h"

namespace halo {
namespace {

using test::error_of;
using testing::ElementsAre;
using testing::HasSubstr;

enum class Place { kCpu, kGpu };
constexpr Word<Place> kPlaces[] = {{"cpu", Place::kCpu}, {"gpu", Place::kGpu}};

struct Machine {
  Place device = Place::kCpu;
  bool graphs = true;

  void settings(Settings& s) {
    s("device", device, kPlaces, {.help = "where it runs"});
    s("graphs", graphs, {.help = "recorded"});
  }
};

struct Args {
  int64_t max_tokens = 128;
  double top_p = 1;
  std::vector<std::string> stop;
  Machine machine;

  void settings(Settings& s) {
    s("max_tokens", max_tokens, {.help = "new tokens at most", .min = 1, .max = 1000});
    s("top_p", top_p, {.help = "probability", .max = 1});
    s("stop", stop, {.help = "texts that end it"});
    s("machine", machine, {});
  }
};

Args parse(const std::string& line) {
  CLI::App app;
  Args args;
  add_options(app, args);
  app.parse(line);
  return args;
}

TEST(Options, AreTheSettings) {
  const Args args = parse("--max-tokens 5 --top-p .9 --device gpu --no-graphs --stop a,b --stop c");
  EXPECT_EQ(args.max_tokens, 5);
  EXPECT_EQ(args.top_p, 0.9);
  EXPECT_EQ(args.machine.device, Place::kGpu);
  EXPECT_FALSE(args.machine.graphs);
  EXPECT_THAT(args.stop, ElementsAre("a,b", "c"));
  EXPECT_EQ(parse("").max_tokens, 128);
  EXPECT_TRUE(parse("--graphs").machine.graphs);
}

TEST(Options, RefuseWhatARecipeWouldRefuse) {
  EXPECT_EQ(error_of([] { parse("--max-tokens 0"); }), "--max-tokens: expected 1 to 1000, got 0");
  EXPECT_EQ(error_of([] { parse("--max-tokens 3x"); }),
            "--max-tokens: expected an integer, got '3x'");
  EXPECT_EQ(error_of([] { parse("--device gup"); }),
            "--device: 'gup' is unknown; did you mean 'gpu'? (cpu | gpu)");
  EXPECT_THROW(parse("--top-p 2"), UsageError);
}

TEST(Options, HelpSaysDefaultWordsAndBounds) {
  CLI::App app;
  Args args;
  add_options(app, args);
  const std::string help = app.help();
  EXPECT_THAT(help, HasSubstr("--max-tokens"));
  EXPECT_THAT(help, HasSubstr("=128"));
  EXPECT_THAT(help, HasSubstr("new tokens at most (1 to 1000)"));
  EXPECT_THAT(help, HasSubstr("cpu|gpu"));
}

TEST(Options, OverARecipeAreAssignments) {
  CLI::App app;
  std::vector<std::string> set;
  add_overrides<Machine>(app, "run", set);
  app.parse("--device gpu --no-graphs");
  EXPECT_THAT(set, ElementsAre("run.device=gpu", "run.graphs=false"));
  EXPECT_THAT(error_of([&] { app.parse("--device gup"); }), HasSubstr("--device: 'gup'"));
}

}  // namespace
}  // namespace halo
