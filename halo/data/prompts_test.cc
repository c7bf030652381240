#include "halo/data/prompts.h"

#include <gmock/gmock.h>

#include <set>

#include "ATen/ATen.h"
#include "tests/testing.h"

namespace halo {
namespace {

using test::Folder;
using testing::ElementsAre;

constexpr auto kHash = "0123";
constexpr auto kAsked = static_cast<uint8_t>(NeedleMark::kAsked);

// Document d is 100 d, 100 d + 1, ...; its first asked[d] tokens are what an answer is given to.
void write_shard(const std::filesystem::path& path, const std::vector<int64_t>& lengths,
                 const std::vector<int64_t>& asked = {}) {
  TokenShardWriter writer(path, kHash, 70'000, "{}");
  for (size_t d = 0; d < lengths.size(); ++d) {
    std::vector<int64_t> tokens;
    for (int64_t t = 0; t < lengths[d]; ++t) tokens.push_back(100 * static_cast<int64_t>(d) + t);
    std::vector<uint8_t> marks;
    if (!asked.empty()) {
      marks.resize(tokens.size());
      std::fill_n(marks.begin(), asked[d], kAsked);
    }
    writer.add_document(tokens, marks);
  }
  writer.finish();
}

// First token -> length, of a batch of prompts that are beginnings of such documents.
std::map<int64_t, int64_t> pieces(const TrainBatch& batch) {
  const int64_t* tokens = batch.tokens.const_data_ptr<int64_t>();
  std::map<int64_t, int64_t> out;
  EXPECT_EQ(std::ssize(batch.offsets), batch.rows + 1);
  EXPECT_EQ(batch.offsets.back(), batch.tokens.numel());
  for (int64_t row = 0; row < batch.rows; ++row) {
    const int64_t begin = batch.offsets[row], end = batch.offsets[row + 1];
    for (int64_t t = begin; t < end; ++t) EXPECT_EQ(tokens[t], tokens[begin] + t - begin);
    out[tokens[begin]] = end - begin;
  }
  return out;
}

DataRecipe recipe_of(const std::vector<std::filesystem::path>& paths) {
  DataRecipe recipe;
  for (const auto& path : paths) recipe.shards.push_back(path.string());
  return recipe;
}

TEST(Prompts, AreBeginningsOfTextsAndQuestionsOfConversations) {
  const Folder folder;
  // Of text: 4 tokens, or half of it, or 1. Of conversations: all that is asked, unless that leaves
  // no room.
  write_shard(folder / "text.halotok", {20, 6, 1});
  write_shard(folder / "chat.halotok", {20, 20, 20}, {7, 10, 11});
  const auto of = [&](const char* file) {
    const Prompts prompts(recipe_of({folder / file}), kHash, {.tokens = 4, .most = 10}, 3, 1);
    return pieces(prompts.step(0, 0, 3));
  };
  EXPECT_EQ(of("text.halotok"), (std::map<int64_t, int64_t>{{0, 4}, {100, 3}, {200, 1}}));
  EXPECT_EQ(of("chat.halotok"), (std::map<int64_t, int64_t>{{0, 7}, {100, 10}, {200, 4}}));
}

TEST(Prompts, AreAFunctionOfSeedStepAndRow) {
  const Folder folder;
  write_shard(folder / "a.halotok", std::vector<int64_t>(12, 9));
  const auto make = [&](uint64_t seed) {
    return Prompts(recipe_of({folder / "a.halotok"}), kHash, {.tokens = 3, .most = 8}, 4, seed);
  };
  const Prompts prompts = make(1);
  std::set<int64_t> seen;
  for (int64_t step = 0; step < 3; ++step) {  // an epoch
    const TrainBatch whole = prompts.step(step, 0, 4);
    EXPECT_TRUE(make(1).step(step, 0, 4).tokens.equal(whole.tokens));
    const at::Tensor parts =
        at::cat({prompts.step(step, 0, 1).tokens, prompts.step(step, 1, 3).tokens});
    EXPECT_TRUE(parts.equal(whole.tokens));
    for (const auto& [first, length] : pieces(whole)) seen.insert(first);
  }
  EXPECT_EQ(seen.size(), 12u);
  EXPECT_FALSE(make(2).step(0, 0, 4).tokens.equal(prompts.step(0, 0, 4).tokens));
  EXPECT_FALSE(prompts.step(3, 0, 4).tokens.equal(prompts.step(0, 0, 4).tokens));
}

TEST(Prompts, FollowTheMixtureAndLeaveNeedlesOut) {
  const Folder folder;
  write_shard(folder / "a.halotok", std::vector<int64_t>(8, 9));
  write_shard(folder / "b.halotok", std::vector<int64_t>(8, 9), std::vector<int64_t>(8, 5));
  DataRecipe recipe = recipe_of({folder / "a.halotok", folder / "b.halotok"});
  recipe.weights = {3, 1};
  recipe.needle_share = 0.5;
  const Prompts prompts(recipe, kHash, {.tokens = 2, .most = 8}, 8, 1);
  const TrainBatch batch = prompts.step(0, 0, 8);
  int64_t questions = 0;
  for (size_t i = 0; i < 8; ++i) questions += batch.offsets[i + 1] - batch.offsets[i] == 5;
  EXPECT_EQ(questions, 2);
}

TEST(Prompts, OfAShardAreSpreadOverIt) {
  const Folder folder;
  write_shard(folder / "a.halotok", {9, 9, 9, 9, 9, 9, 9});
  const TokenShard shard(folder / "a.halotok");
  const PromptPlan plan{.tokens = 2, .most = 8};
  using Prompt = std::vector<int64_t>;
  EXPECT_THAT(prompts_of(shard, 1, 7, 2, plan), ElementsAre(Prompt{100, 101}, Prompt{400, 401}));
  EXPECT_EQ(prompts_of(shard, 1, 7, 100, plan).size(), 6u);
}

TEST(Prompts, RefuseARecipeWithoutText) {
  DataRecipe recipe;
  recipe.needle_share = 1;
  recipe.haystack = {"somewhere"};
  EXPECT_THAT(test::error_of([&] { Prompts(recipe, kHash, {.tokens = 2, .most = 8}, 1, 1); }),
              testing::HasSubstr("data.shards is empty"));
}

}  // namespace
}  // namespace halo
