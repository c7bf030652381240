#include "halo/pipeline/init.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "halo/base/files.h"
#include "halo/formats/token_shard.h"
#include "halo/pipeline/plan.h"
#include "tests/places.h"
#include "tests/testing.h"

namespace halo {
namespace {

using test::error_of;
using testing::ElementsAre;
using testing::HasSubstr;

class Init : public testing::Test {
 protected:
  std::string path(const std::string& name) const { return (folder_.path() / name).string(); }

  std::string shard(const std::string& name) const {
    std::filesystem::create_directories(std::filesystem::path(path(name)).parent_path());
    TokenShardWriter writer(path(name), "hash", 100, "{}");
    writer.add_document(std::vector<int64_t>{1, 2, 3});
    writer.finish();
    return path(name);
  }

  std::string text(const std::string& name) const {
    write_file(path(name), "text");
    return path(name);
  }

  InitArgs args(const std::string& size, std::vector<std::string> data) const {
    RunRecipe run;
    run.device = at::kCUDA;
    run.compute = at::kBFloat16;
    return {(test::source_dir() / size).string(),
            std::move(data),
            run,
            {"a card", int64_t{140} << 30, 1}};
  }

  Recipe recipe(const InitialRecipe& made) const {
    write_file(path("recipe.toml"), made.text);
    return read_recipe(path("recipe.toml"), {});
  }

  test::Folder folder_;
};

TEST_F(Init, PublishedSettingsForThePublishedSizes) {
  for (const auto& [size, rate, fits] :
       {std::tuple{"1.7b", 1e-4, true}, {"4b", 5e-5, true}, {"8b", 3e-5, false}}) {
    const InitArgs given =
        args(std::string("configs/model/qwen3-") + size, {shard("a.halotok"), shard("b.halotok")});
    const Recipe made = recipe(make_recipe(given));
    EXPECT_EQ(made.align.tokens, Recipe().align.tokens) << size;
    EXPECT_EQ(made.distill.tokens, Recipe().distill.tokens);
    EXPECT_EQ(made.finetune.tokens, Recipe().finetune.tokens);
    EXPECT_EQ(made.distill.sequence_length, 512);
    EXPECT_EQ(made.finetune.sequence_length, 16'384);
    EXPECT_DOUBLE_EQ(made.align.learning_rate, 1e-3);
    EXPECT_DOUBLE_EQ(made.distill.learning_rate, rate) << size;
    EXPECT_EQ(check_fit(made, plan(made, 1), given.capacity).at("fits").as_bool(), fits) << size;
  }
}

TEST_F(Init, ASmallModelHasSmallBudgetsLargeRatesAndItsOwnLengths) {
  InitArgs given = args("demo/teacher", {shard("a.halotok")});
  given.run = {};
  given.capacity.memory_bytes = int64_t{2} << 30;
  const InitialRecipe made = make_recipe(given);
  const Recipe r = recipe(made);
  EXPECT_EQ(r.run.device, at::kCPU);
  EXPECT_EQ(r.align.tokens, 8'000'000);
  EXPECT_EQ(r.distill.tokens, 16'000'000);
  EXPECT_EQ(r.finetune.tokens, 0);
  EXPECT_EQ(r.distill.sequence_length, 1024);
  EXPECT_DOUBLE_EQ(r.distill.learning_rate, 1e-3);
  EXPECT_TRUE(check_fit(r, plan(r, 1), given.capacity).at("fits").as_bool());
  EXPECT_EQ(r.eval.held_out, "");
  EXPECT_THAT(made.notes, ElementsAre(HasSubstr("eval.held_out")));
}

TEST_F(Init, LessMemoryMakesItSparing) {
  InitArgs given = args("configs/model/qwen3-1.7b", {shard("a.halotok")});
  given.capacity.memory_bytes = int64_t{48} << 30;
  const Recipe r = recipe(make_recipe(given));
  EXPECT_TRUE(r.run.activation_checkpointing);
  EXPECT_TRUE(check_fit(r, plan(r, 1), given.capacity).at("fits").as_bool());
}

TEST_F(Init, TheLastShardOrTextIsHeldOut) {
  const std::string a = shard("a.halotok"), b = shard("b.halotok");
  const Recipe shards = recipe(make_recipe(args("demo/teacher", {path("")})));
  EXPECT_THAT(shards.data.shards, ElementsAre(a));
  EXPECT_EQ(shards.eval.held_out, b);

  // Of several entries the whole last one.
  const std::string train = shard("train/c.halotok"), first = shard("other/d.halotok");
  shard("other/e.halotok");
  const InitialRecipe folders = make_recipe(args("demo/teacher", {path("train"), path("other")}));
  EXPECT_THAT(recipe(folders).data.shards, ElementsAre(train));
  EXPECT_EQ(recipe(folders).eval.held_out, first);
  EXPECT_THAT(folders.notes, ElementsAre(HasSubstr("held out"), HasSubstr("1 shards after it")));

  const InitialRecipe made = make_recipe(args("demo/teacher", {text("x.txt"), text("y.txt")}));
  EXPECT_THAT(made.notes,
              testing::Contains(HasSubstr("data pack " + path("y.txt") + " --tokenizer")));
  for (const std::string& note : made.notes) EXPECT_THAT(made.text, HasSubstr("# " + note + "\n"));
  const Recipe packed = recipe(made);
  EXPECT_THAT(packed.data.shards, ElementsAre("shards/train"));
  EXPECT_EQ(packed.eval.held_out, "shards/held-out");
}

TEST_F(Init, RefusesWhatCannotBeUsed) {
  const auto refused = [&](const std::string& model, const std::vector<std::string>& data) {
    return error_of([&] { make_recipe(args(model, data)); });
  };
  EXPECT_THAT(refused("demo/teacher", {"/nowhere"}), HasSubstr("/nowhere"));
  EXPECT_THAT(refused("demo/teacher", {shard("a.halotok"), text("x.txt")}), HasSubstr("pack"));
  EXPECT_THAT(refused("demo", {shard("a.halotok")}), HasSubstr("config.json"));
}

}  // namespace
}  // namespace halo
