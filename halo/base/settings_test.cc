#include "halo/base/settings.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>

#include "halo/base/settings_io.h"
#include "tests/testing.h"

namespace halo {
namespace {

using test::error_of;
using testing::ElementsAre;
using testing::HasSubstr;

enum class Rule { kJoint, kRatio, kEven };
constexpr Word<Rule> kRules[] = {
    {"joint", Rule::kJoint}, {"ratio", Rule::kRatio, "halo"}, {"even", Rule::kEven}};

struct Stage {
  int64_t tokens = 500'000;
  double learning_rate = 1e-3;
  int64_t keep_checkpoints = 2;
  std::vector<std::string> losses = {"mse"};

  void settings(Settings& s) {
    s("tokens", tokens, {.help = "training tokens", .max = 1e9});
    s("learning_rate", learning_rate, {.help = "peak rate", .min = 1e-9, .max = 10});
    s("keep_checkpoints", keep_checkpoints,
      {.help = "how many", .max = 9, .effect = Effect::kNone, .was = "keep"});
    s("losses", losses, {.help = "what is minimised"});
  }
  bool operator==(const Stage&) const = default;
};

struct Recipe {
  std::string name = "tiny";
  bool fast = false;
  Rule rule = Rule::kJoint;
  std::vector<int64_t> layers;
  std::vector<double> weights = {1};
  Stage align, gates;

  void settings(Settings& s) {
    s("name", name, {.help = "title"});
    s("align", align, {.help = "stage 1", .was = "stage1"});
    s("gates", gates, {.help = "limits", .effect = Effect::kNone});
    s("fast", fast, {.help = "less of everything"});
    s("rule", rule, kRules, {.help = "which layers"});
    s("layers", layers, {.help = "as given", .max = 99});
    s("weights", weights, {.help = "shares", .max = 1});
  }
  bool operator==(const Recipe&) const = default;
};

Recipe read(const std::string& text) {
  Recipe recipe;
  read_toml(recipe, text, "r.toml");
  return recipe;
}

TEST(Settings, ReadsToml) {
  const Recipe recipe = read(R"(
name = "x"
fast = true
rule = "even"
layers = [3, 4]
weights = [1, 0.5]
[align]
tokens = 10
learning_rate = 1)");
  EXPECT_EQ(recipe.name, "x");
  EXPECT_TRUE(recipe.fast);
  EXPECT_EQ(recipe.rule, Rule::kEven);
  EXPECT_THAT(recipe.layers, ElementsAre(3, 4));
  EXPECT_THAT(recipe.weights, ElementsAre(1, 0.5));
  EXPECT_EQ(recipe.align.tokens, 10);
  EXPECT_EQ(recipe.align.learning_rate, 1.0);
  EXPECT_THAT(recipe.align.losses, ElementsAre("mse"));
}

TEST(Settings, ErrorsNameFileLineAndKey) {
  EXPECT_EQ(error_of([] { read("name = 'x'\n[align]\ntokns = 3"); }),
            "r.toml:3: align.tokns: unknown key; did you mean 'tokens'?");
  EXPECT_EQ(error_of([] { read("\nalgn = 3"); }),
            "r.toml:2: algn: unknown key; did you mean 'align'?");
  EXPECT_EQ(error_of([] { read("[align]\ntokens = 1.5"); }),
            "r.toml:2: align.tokens: expected an integer, got a value of type floating-point");
  EXPECT_THAT(error_of([] { read("align = 1"); }), HasSubstr("r.toml:1: align: expected a table"));
  EXPECT_THAT(error_of([] { read("layers = [1, 'x']"); }),
              HasSubstr("r.toml:1: layers: entry 1: expected an integer"));
  EXPECT_THAT(error_of([] { read("[align]\ntokens = 99999999999999999999"); }),
              HasSubstr("r.toml:2:"));
  EXPECT_THAT(error_of([] { read("a = 1\na = 2"); }), HasSubstr("r.toml:2:5: invalid TOML"));
  EXPECT_THAT(error_of([] { read("[align\n"); }), HasSubstr("r.toml:1:"));
}

TEST(Settings, NumbersHaveBounds) {
  EXPECT_EQ(error_of([] { read("\n[align]\ntokens = -1"); }),
            "r.toml:3: align.tokens: expected 0 to 1000000000, got -1");
  EXPECT_EQ(read("[align]\nlearning_rate = 10").align.learning_rate, 10);
  EXPECT_EQ(error_of([] { read("[align]\nlearning_rate = 10.5"); }),
            "r.toml:2: align.learning_rate: expected 1e-09 to 10, got 10.5");
  EXPECT_THAT(error_of([] { read("[align]\nlearning_rate = nan"); }), HasSubstr("got nan"));
  EXPECT_EQ(error_of([] { read("weights = [0.5, 2]"); }),
            "r.toml:1: weights: entry 1: expected 0 to 1, got 2");
}

TEST(Settings, WordsBecomeValuesOnce) {
  EXPECT_EQ(error_of([] { read("\nrule = 'jiont'"); }),
            "r.toml:2: rule: 'jiont' is unknown; did you mean 'joint'? (joint | ratio | even)");
  EXPECT_THAT(error_of([] { read("rule = 3"); }), HasSubstr("rule: expected a string"));
  EXPECT_EQ(word_of(kRules, Rule::kRatio), "ratio");
}

TEST(Settings, OldKeysAndWordsAreReadWithOneWarning) {
  testing::internal::CaptureStdout();
  const Recipe recipe = read("rule = 'halo'\n[stage1]\nkeep = 3\ntokens = 4\n[gates]\nkeep = 5");
  const std::string warned = testing::internal::GetCapturedStdout();
  EXPECT_EQ(recipe.rule, Rule::kRatio);
  EXPECT_EQ(recipe.align.keep_checkpoints, 3);
  EXPECT_EQ(recipe.align.tokens, 4);
  EXPECT_EQ(recipe.gates.keep_checkpoints, 5);
  EXPECT_THAT(warned, HasSubstr("rule = 'halo' is 'ratio' now"));
  EXPECT_THAT(warned, HasSubstr("stage1.keep is align.keep_checkpoints now"));
  EXPECT_EQ(std::ranges::count(warned, '\n'), 1) << warned;
  EXPECT_EQ(error_of([] { read("[gates]\nkeep = 3\nkeep_checkpoints = 4"); }),
            "r.toml:3: gates.keep_checkpoints: is given as 'gates.keep_checkpoints' too");
}

TEST(Settings, SetsOne) {
  Recipe recipe;
  set_setting(recipe, "align.tokens=1000");
  set_setting(recipe, "align.losses=['a', 'b']");
  set_setting(recipe, "name=runs/x=1");
  set_setting(recipe, "fast=true");
  set_setting(recipe, "rule=even");
  EXPECT_EQ(recipe.align.tokens, 1000);
  EXPECT_EQ(recipe.align.learning_rate, 1e-3);
  EXPECT_THAT(recipe.align.losses, ElementsAre("a", "b"));
  EXPECT_EQ(recipe.name, "runs/x=1");
  EXPECT_EQ(recipe.rule, Rule::kEven);
  EXPECT_TRUE(recipe.fast);
  set_setting(recipe, "name=a\nfast = false");
  EXPECT_EQ(recipe.name, "a\nfast = false");
  EXPECT_TRUE(recipe.fast);
  EXPECT_EQ(error_of([&] { set_setting(recipe, "align.tokns=1"); }),
            "--set: align.tokns: unknown key; did you mean 'tokens'?");
  EXPECT_THAT(error_of([&] { set_setting(recipe, "align.tokens=many"); }),
              HasSubstr("--set: align.tokens: expected an integer"));
  EXPECT_THROW(set_setting(recipe, "align.tokens"), UsageError);
  EXPECT_THROW(set_setting(recipe, "=3"), UsageError);
}

TEST(Settings, TomlAndJsonReadBackEqual) {
  Recipe recipe;
  recipe.name = "quote \" back \\ line \n del \x7f \xc3\xa9";
  recipe.rule = Rule::kRatio;
  recipe.layers = {1, 2};
  recipe.weights = {0.1, 1.0 / 3};
  recipe.align.learning_rate = 3;
  EXPECT_EQ(read(to_toml(recipe)), recipe);
  EXPECT_EQ(read(to_toml(Recipe())), Recipe());
  Recipe from_json;
  read_json_settings(settings_of(from_json), to_json(recipe), "r.json");
  EXPECT_EQ(from_json, recipe);
  EXPECT_EQ(error_of([&] {
              read_json_settings(settings_of(from_json), {{"fast", nullptr}}, "r.json");
            }),
            "a JSON value of kind null is no setting");
}

TEST(Settings, WritesJsonAndHelp) {
  const json::object object = to_json(Recipe());
  EXPECT_EQ(object.at("align").at("tokens").as_int64(), 500'000);
  EXPECT_EQ(object.at("rule"), "joint");
  EXPECT_EQ(object.begin()->key(), "name");
  const std::string help = settings_help(Recipe());
  EXPECT_THAT(help, HasSubstr("name  (\"tiny\")  title\n"
                              "align.tokens  (500000)  training tokens\n"
                              "align.learning_rate  (0.001)  peak rate\n"));
  EXPECT_THAT(help, HasSubstr("rule  (\"joint\")  joint | ratio | even: which layers\n"));
}

TEST(Settings, DifferencesSayWhatTheyChange) {
  Recipe before, now;
  now.align.tokens = 7;
  now.align.keep_checkpoints = 3;
  now.gates.tokens = 8;  // in a section without effect
  const std::vector<Difference> found = differences(before, now);
  ASSERT_EQ(found.size(), 3u);
  EXPECT_EQ(found[0].key + " " + found[0].before + " " + found[0].now, "align.tokens 500000 7");
  EXPECT_EQ(found[0].effect, Effect::kResult);
  EXPECT_EQ(found[1].effect, Effect::kNone);
  EXPECT_EQ(found[2].effect, Effect::kNone);
}

}  // namespace
}  // namespace halo
