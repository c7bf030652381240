#include "halo/pipeline/checks.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "halo/base/files.h"
#include "halo/formats/token_shard.h"
#include "halo/pipeline/fit.h"
#include "halo/pipeline/plan.h"
#include "halo/pipeline/pretrain.h"
#include "tests/places.h"
#include "tests/testing.h"

namespace halo {
namespace {

using test::error_of;
using testing::ElementsAre;
using testing::HasSubstr;

// A recipe beside whose teacher is a config.json alone.
class Checks : public testing::Test {
 protected:
  std::string refusal(const std::string& set) const {
    return error_of([&] { read(set); });
  }
  Recipe read(const std::string& set) const {
    std::vector<std::string> all = {
        "teacher=" + (test::source_dir() / "configs/model/qwen3-1.7b").string(),
        "data.shards=[\"/nowhere/train\"]", "eval.held_out=/nowhere/held-out"};
    if (!set.empty()) all.push_back(set);
    return read_recipe(path_, all);
  }
  std::string refusal_ahead(const std::string& set, Missing missing = Missing::kNoted) const {
    return error_of([&] { check_ahead(read(set), missing); });
  }

  Checks() { write_file(path_, ""); }
  const test::Folder folder_;
  const std::filesystem::path path_ = folder_ / "recipe.toml";
};

TEST_F(Checks, OfTheRecipeAlone) {
  const std::vector<std::pair<std::string, std::string>> cases = {
      {"eval.questions=200", "eval.questions: 200, but there are"},
      {"scale.questions=200", "scale.questions: 200, but there are"},
      {"select.needle_questions=200", "select.needle_questions: 200, but there are"},
      {"eval.lengths=[512, 1024, 512]", "eval.lengths: 512 is given twice"},
      {"scale.lengths=[512, 512]", "scale.lengths: 512 is given twice"},
      {"scale.candidates=[500, 500]", "scale.candidates: 500 is given twice"},
      {"gates.distill_kl=nan", "gates.distill_kl"},
      {"gates.select_ratio=inf", "gates.select_ratio"},
      {"data.needle_share=1.5", "data.needle_share"},
      {"data.needle_share=nan", "data.needle_share"},
      {"align.tokens=9007199254740993", "align.tokens"},
      {"align.sequence_length=1", "align.sequence_length"},
      {"distill.learning_rate=5e-6", "distill.min_learning_rate: 1e-05, the default, is above"},
  };
  for (const auto& [set, sentence] : cases) EXPECT_THAT(refusal(set), HasSubstr(sentence)) << set;
}

TEST_F(Checks, AMinimumCountsOnlyIfTheScheduleUsesIt) {
  EXPECT_EQ(read("finetune.learning_rate=5e-6").finetune.learning_rate, 5e-6);
  EXPECT_THAT(refusal("align.learning_rate=5e-6"), HasSubstr("align.min_learning_rate"));
}

TEST_F(Checks, OfTheTeachersConfiguration) {
  EXPECT_THAT(refusal_ahead("select.keep=29"), HasSubstr("select.keep = 29: the model has 28"));
  EXPECT_THAT(refusal_ahead("scale.lengths=[1024]"), HasSubstr("scale.lengths: the longest is"));
  EXPECT_THAT(refusal_ahead("teacher="), HasSubstr("teacher: names no model"));
  EXPECT_THAT(refusal_ahead("teacher=/nowhere"), HasSubstr("teacher: "));
  EXPECT_THAT(refusal_ahead("data.weights=[1, 2]"), HasSubstr("data.weights has 2 entries"));
  EXPECT_THAT(error_of([&] {
                Recipe recipe = read("transfer.learned_decay=true");
                recipe.finetune.context_ranks = 2;
                check_ahead(recipe, Missing::kNoted);
              }),
              HasSubstr("finetune.context_ranks: 2 ranks cannot share the states"));
}

// A learned decay is H (D + 1) parameters of each of 21 lightning layers.
TEST_F(Checks, LearnedDecaysArePlanned) {
  const auto parameters = [&](const std::string& set) {
    return plan(read(set), 1).at("student_parameters").to_number<int64_t>();
  };
  EXPECT_EQ(parameters("transfer.learned_decay=true"), parameters("") + 21 * 16 * 2049);
  // Nothing says how long their steps take, nor those in fp32.
  Recipe recipe = read("run.compute=bfloat16");
  const auto knows_seconds = [&] {
    const json::object planned = plan(recipe, {1000, 1000});
    return !planned.at("stages").as_array().back().as_object().at("seconds").is_null();
  };
  EXPECT_TRUE(knows_seconds());
  recipe.transfer.learned_decay = true;
  EXPECT_FALSE(knows_seconds());
  recipe = read("run.compute=float32");
  EXPECT_FALSE(knows_seconds());
}

TEST_F(Checks, TeachersInFp8HaveSizesThat16Divides) {
  const auto from = test::source_dir() / "configs/model/qwen3-1.7b/config.json";
  json::object config = parse_json(read_file(from), "config").as_object();
  config["intermediate_size"] = 6150;
  std::filesystem::create_directory(folder_ / "odd");
  write_file(folder_ / "odd/config.json", json::serialize(config));
  Recipe recipe = read("");
  recipe.teacher = (folder_ / "odd").string();
  check_ahead(recipe, Missing::kNoted);
  recipe.distill.teacher_products = TeacherProducts::kFp8;
  EXPECT_THAT(error_of([&] { check_ahead(recipe, Missing::kNoted); }),
              HasSubstr("the teacher's intermediate_size is 6150"));
}

// plan says what it could not look at; convert refuses it by the key.
TEST_F(Checks, WhatIsNotThereIsNotedOrRefused) {
  const std::vector<std::string> unchecked = check_ahead(read(""), Missing::kNoted);
  EXPECT_THAT(unchecked, ElementsAre(HasSubstr("holds no weights"), HasSubstr("tokenizer.json")));
  EXPECT_THAT(refusal_ahead("", Missing::kRefused), HasSubstr("teacher: "));
  EXPECT_THAT(check_ahead(read("eval.held_out="), Missing::kNoted),
              testing::Contains(HasSubstr("eval.held_out names no token shard")));
  EXPECT_THAT(refusal_ahead("eval.held_out=", Missing::kRefused), HasSubstr("eval.held_out"));
}

// Counts beyond 64 bits when multiplied stay positive, and fit no machine.
TEST_F(Checks, AMostExtremeRecipeIsPlanned) {
  Recipe recipe = read("");
  for (TrainRecipe* train :
       {static_cast<TrainRecipe*>(&recipe.align), static_cast<TrainRecipe*>(&recipe.distill)}) {
    train->tokens = int64_t{1} << 53;
    train->sequence_length = 16'777'216;
    train->tokens_per_step = 59'604 * train->sequence_length;
    train->micro_batch_rows = 1'000'000;
    train->keep_checkpoints = 1'000'000;
  }
  const json::object planned = plan(recipe, 1);
  for (const json::value& stage : planned.at("stages").as_array()) {
    EXPECT_GT(stage.at("memory_bytes").to_number<int64_t>(), 0);
    EXPECT_GT(stage.at("disk_bytes").to_number<int64_t>(), 0);
    EXPECT_GT(stage.at("flops").to_number<double>(), 0);
  }
  EXPECT_GT(planned.at("disk_bytes").to_number<int64_t>(), 0);
}

// 100 tokens of text, 40 of each step's 80 being text: 10 steps read it 4 times, 11 do more.
TEST_F(Checks, TextReadMoreThanFourTimesIsWarnedOf) {
  for (const char* name : {"a", "b"}) {
    TokenShardWriter writer(folder_ / name, "hash", 290, "{}");
    writer.add_document(std::vector<int64_t>(100, 7));
    writer.finish();
  }
  const auto sentences = [&](int64_t steps, const std::string& shards, const std::string& set) {
    Recipe recipe = read(set);
    recipe.data.shards.clear();
    for (const char name : shards) recipe.data.shards.push_back(folder_ / std::string(1, name));
    recipe.data.needle_share = 0.5;
    recipe.align.tokens_per_step = recipe.distill.tokens_per_step = 80;
    recipe.align.tokens = 80;
    recipe.align_attention.tokens = recipe.finetune.tokens = 0;
    recipe.distill.tokens = 80 * steps;
    return repeated_text(recipe);
  };
  EXPECT_THAT(sentences(10, "a", ""), ElementsAre());
  EXPECT_THAT(sentences(15, "a", ""),
              ElementsAre(HasSubstr("distill.tokens: 1200, so the 100 tokens of data.shards are "
                                    "read 6.0 times")));
  EXPECT_THAT(sentences(15, "ab", ""), ElementsAre());
  EXPECT_THAT(sentences(15, "ab", "data.weights=[3, 1]"),
              ElementsAre(testing::AllOf(HasSubstr("/a are read 4.5 times"))));
}

TEST_F(Checks, CardsByName) {
  Recipe recipe = read("run.device=cuda");
  recipe.run.compute = at::kBFloat16;
  EXPECT_DOUBLE_EQ(card_capacity("h200", recipe.run).rates.matrix_gflops, 750'000);
  EXPECT_EQ(card_capacity("h100", recipe.run).memory_bytes / (int64_t{1} << 30), 79);
  EXPECT_THAT(error_of([&] { card_capacity("h10", recipe.run); }), HasSubstr("'h100'"));
  recipe.run.device = at::kCPU;
  EXPECT_THAT(error_of([&] { card_capacity("h100", recipe.run); }), HasSubstr("--device cuda"));
}

TEST_F(Checks, OfPretraining) {
  const auto refusal = [&](const std::string& set) {
    return error_of([&] { read_pretrain_recipe(path_, {"text=[\"a\"]", set}); });
  };
  EXPECT_THAT(refusal("lengths=[1, 256, 512, 1024]"), HasSubstr("lengths"));
  EXPECT_THAT(refusal("shares=[0, 0, 0, 0]"), HasSubstr("shares must have a sum above 0"));
  EXPECT_THAT(refusal("model.head_dim=3"), HasSubstr("head_dim"));
  EXPECT_THAT(refusal("model.num_kv_heads=3"), HasSubstr("num_key_value_heads"));
  EXPECT_THAT(error_of([&] { read_pretrain_recipe(path_, {"text=[]"}); }),
              HasSubstr("data.shards is empty"));
}

TEST(CheckSettings, TeachersInFp8NeedAGpuWithBf16AndAWholeTeacher) {
  Recipe recipe;
  recipe.distill.teacher_products = TeacherProducts::kFp8;
  const auto error = [&] { return test::error_of([&] { check_settings(recipe, "r.toml"); }); };
  EXPECT_THAT(error(), HasSubstr("distill.teacher_products: 'fp8' is for run.device = 'cuda'"));
  recipe.run.device = at::kCUDA;
  EXPECT_THAT(error(), HasSubstr("run.compute = 'bfloat16'"));
  recipe.run.compute = at::kBFloat16;
  EXPECT_EQ(error(), "no error");
  recipe.run.shard = Shard::kFull;
  EXPECT_THAT(error(), HasSubstr("other than 'full'"));
}

}  // namespace
}  // namespace halo
