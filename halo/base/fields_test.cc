#include "halo/base/fields.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>

#include "tests/testing.h"

namespace halo {
namespace {

using test::error_of;
using testing::HasSubstr;

struct Stage {
  int64_t tokens = 500'000;
  double learning_rate = 1e-3;
  std::vector<std::string> losses = {"mse"};

  template <class V>
  void fields(V& v) {
    v("tokens", tokens, "training tokens");
    v("learning_rate", learning_rate, "peak rate");
    v("losses", losses, "what is minimised");
  }
  bool operator==(const Stage&) const = default;
};

struct Source {
  std::string path;
  double weight = 1;

  template <class V>
  void fields(V& v) {
    v("path", path, "file");
    v("weight", weight, "share");
  }
  bool operator==(const Source&) const = default;
};

struct Recipe {
  std::string name = "tiny";
  bool fast = false;
  std::map<std::string, double> mixture = {{"books", 1}};
  std::vector<bool> flags;
  std::vector<Source> sources;
  Stage align;

  template <class V>
  void fields(V& v) {
    v("name", name, "title");
    v("align", align, "stage 1");
    v("fast", fast, "less of everything");
    v("mixture", mixture, "weights");
    v("flags", flags, "switches");
    v("sources", sources, "inputs");
  }
  bool operator==(const Recipe&) const = default;
};

Recipe read(const std::string& text) {
  Recipe recipe;
  read_fields(recipe, parse_toml(text, "r.toml"), "r.toml");
  return recipe;
}

TEST(Fields, ReadsToml) {
  const Recipe recipe = read(R"(
name = "x"
flags = [true, false]
mixture = {web = 2, code = 0.5}
[align]
tokens = 10
learning_rate = 1
[[sources]]
path = "a"
[[sources]]
path = "b"
weight = 3)");
  EXPECT_EQ(recipe.name, "x");
  EXPECT_EQ(recipe.align.tokens, 10);
  EXPECT_EQ(recipe.align.learning_rate, 1.0);
  EXPECT_EQ(recipe.align.losses, std::vector<std::string>{"mse"});
  EXPECT_EQ(recipe.mixture, (std::map<std::string, double>{{"code", 0.5}, {"web", 2}}));
  EXPECT_EQ(recipe.flags, (std::vector<bool>{true, false}));
  EXPECT_EQ(recipe.sources, (std::vector<Source>{{"a", 1}, {"b", 3}}));
}

TEST(Fields, ErrorsNameFileLineAndKey) {
  EXPECT_EQ(error_of([] { read("name = 'x'\n[align]\ntokns = 3"); }),
            "r.toml:3: align.tokns: unknown key; did you mean 'tokens'?");
  EXPECT_EQ(error_of([] { read("\nalgn = 3"); }),
            "r.toml:2: algn: unknown key; did you mean 'align'?");
  EXPECT_EQ(error_of([] { read("[align]\ntokens = 1.5"); }),
            "r.toml:2: align.tokens: expected an integer, got a value of type floating-point");
  EXPECT_THAT(error_of([] { read("align = 1"); }), HasSubstr("r.toml:1: align: expected a table"));
  EXPECT_THAT(error_of([] { read("[[sources]]\npath = 3"); }),
              HasSubstr("r.toml:2: sources.0.path"));
  EXPECT_THAT(error_of([] { read("[align]\ntokens = 99999999999999999999"); }),
              HasSubstr("r.toml:2:"));
  EXPECT_THAT(error_of([] { read("a = 1\na = 2"); }), HasSubstr("r.toml:2:5: invalid TOML"));
  EXPECT_THAT(error_of([] { read("[align\n"); }), HasSubstr("r.toml:1:"));
}

TEST(Fields, SetsOneField) {
  Recipe recipe;
  set_field(recipe, "align.tokens=1000");
  set_field(recipe, "align.losses=['a', 'b']");
  set_field(recipe, "name=runs/x=1");
  set_field(recipe, "mixture.web=0.25");
  set_field(recipe, "fast=true");
  EXPECT_EQ(recipe.align.tokens, 1000);
  EXPECT_EQ(recipe.align.learning_rate, 1e-3);
  EXPECT_EQ(recipe.align.losses, (std::vector<std::string>{"a", "b"}));
  EXPECT_EQ(recipe.name, "runs/x=1");
  EXPECT_EQ(recipe.mixture, (std::map<std::string, double>{{"books", 1}, {"web", 0.25}}));
  EXPECT_TRUE(recipe.fast);
  set_field(recipe, "name=a\nfast = false");
  EXPECT_EQ(recipe.name, "a\nfast = false");
  EXPECT_TRUE(recipe.fast);
  EXPECT_EQ(error_of([&] { set_field(recipe, "align.tokns=1"); }),
            "--set: align.tokns: unknown key; did you mean 'tokens'?");
  EXPECT_THAT(error_of([&] { set_field(recipe, "align.tokens=many"); }),
              HasSubstr("--set: align.tokens: expected an integer"));
  EXPECT_THROW(set_field(recipe, "align.tokens"), UsageError);
  EXPECT_THROW(set_field(recipe, "=3"), UsageError);
}

TEST(Fields, TomlReadsBackEqual) {
  Recipe recipe;
  recipe.name = "quote \" back \\ line \n del \x7f \xc3\xa9";
  recipe.mixture = {{"a b", 0.1}, {"c", 1e-300}};
  recipe.flags = {true, false};
  recipe.sources = {{"p", 2}, {"q", 1.0 / 3}};
  recipe.align.learning_rate = 3;
  EXPECT_EQ(read(fields_to_toml(recipe)), recipe);
  EXPECT_EQ(read(fields_to_toml(Recipe())), Recipe());
}

TEST(Fields, WritesJsonAndHelp) {
  const json::object object = fields_to_json(Recipe());
  EXPECT_EQ(object.at("align").at("tokens").as_int64(), 500'000);
  EXPECT_EQ(object.at("mixture").at("books").as_double(), 1.0);
  EXPECT_EQ(object.begin()->key(), "name");
  EXPECT_EQ(fields_help(Stage(), "align."),
            "align.tokens  (500000)  training tokens\n"
            "align.learning_rate  (0.001)  peak rate\n"
            "align.losses  ([\"mse\"])  what is minimised\n");
  EXPECT_THAT(fields_help(Recipe()), HasSubstr("\nalign.tokens  (500000)  training tokens\n"));
}

TEST(Nearest, IsByEditDistance) {
  EXPECT_EQ(nearest("tokns", {"steps", "tokens", "token_type"}), "tokens");
  EXPECT_EQ(nearest("x", {}), "");
}

}  // namespace
}  // namespace halo
