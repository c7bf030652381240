#include "halo/stages/on_policy.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "ATen/ATen.h"
#include "halo/kernels/linear_cross_entropy/linear_cross_entropy.h"
#include "halo/model/model_testing.h"
#include "halo/stages/training_stage.h"
#include "tests/testing.h"

namespace halo {
namespace {

using testing::HasSubstr;

constexpr int64_t kPromptTokens = 5, kLength = 24;

DecoderWeights student(uint64_t seed = 1) {
  return without_gradients(with_logit_scale(*test::random_model(test::hybrid_config(), seed), {}));
}

// `rows` different prompts from number `first` on.
TrainBatch prompts(int64_t first, int64_t rows) {
  TrainBatch batch;
  batch.rows = rows;
  std::vector<at::Tensor> parts;
  for (int64_t row = 0; row <= rows; ++row) batch.offsets.push_back(row * kPromptTokens);
  for (int64_t row = 0; row < rows; ++row) {
    const auto tokens = test::random_tokens(kPromptTokens, 100 + first + row);
    parts.push_back(at::tensor(tokens, at::kLong));
  }
  batch.tokens = at::cat(parts);
  return batch;
}

Machine reference_machine() {
  Machine machine;
  machine.kernels = Kernels::kReference;
  return machine;
}

// Of each row: its tokens, what counts of them, its targets.
struct Row {
  std::vector<int64_t> tokens, targets;
  std::vector<float> weights;
  bool operator==(const Row&) const = default;
};

std::vector<Row> rows_of(const std::vector<TrainBatch>& batches) {
  std::vector<Row> out;
  for (const TrainBatch& batch : batches) {
    EXPECT_EQ(std::ssize(batch.offsets), batch.rows + 1);
    for (size_t i = 0; i + 1 < batch.offsets.size(); ++i) {
      Row& row = out.emplace_back();
      for (int64_t t = batch.offsets[i]; t < batch.offsets[i + 1]; ++t) {
        row.tokens.push_back(batch.tokens[t].item<int64_t>());
        row.targets.push_back(batch.targets[t].item<int64_t>());
        row.weights.push_back(batch.token_weights[t].item<float>());
      }
    }
  }
  return out;
}

std::vector<Row> write(const WritingPlan& plan, std::vector<TrainBatch> batches,
                       uint64_t model = 1) {
  write_on(student(model), reference_machine(), plan, batches);
  return rows_of(batches);
}

TEST(OnPolicy, WhatTheStudentChoseCounts) {
  const WritingPlan plan{.length = kLength, .ends = {3, 7, 11, 19}, .seed = 5};
  const auto rows = write(plan, {prompts(0, 20)});
  const TrainBatch given = prompts(0, 20);
  ASSERT_EQ(rows.size(), 20u);
  int64_t ended = 0;
  for (size_t i = 0; i < rows.size(); ++i) {
    const auto& [tokens, targets, weights] = rows[i];
    const auto length = std::ssize(tokens);
    ASSERT_GT(length, kPromptTokens);
    EXPECT_LE(length, kLength);
    for (int64_t t = 0; t < length; ++t) {
      const bool chose = t + 1 >= kPromptTokens && t + 1 < length;
      EXPECT_EQ(weights[t], chose ? 1 : 0);
      EXPECT_EQ(targets[t], chose ? tokens[t + 1] : kIgnoreTarget);
      if (t < kPromptTokens) {
        const auto at = given.offsets[i] + t;
        EXPECT_EQ(tokens[t], given.tokens[at].item<int64_t>());
      }
      const bool is_end = std::ranges::count(plan.ends, tokens[t]) > 0;
      EXPECT_FALSE(is_end && t >= kPromptTokens && t + 1 < length);
      if (t + 1 == length) {
        EXPECT_TRUE(is_end || length == kLength);
        ended += is_end;
      }
    }
  }
  EXPECT_GT(ended, 0);
}

// A text depends on its prompt, its row and the weights, not on what is written beside it.
TEST(OnPolicy, RowsAreWrittenAloneInAnyCompany) {
  WritingPlan plan{.length = kLength, .ends = {3}, .seed = 5, .stream = 40};
  const auto together = write(plan, {prompts(0, 6)});
  EXPECT_EQ(write(plan, {prompts(0, 2), prompts(2, 4)}), together);
  plan.stream += 4;
  const auto last = write(plan, {prompts(4, 2)});
  EXPECT_EQ(last, (std::vector<Row>{together[4], together[5]}));
  EXPECT_NE(write(plan, {prompts(0, 6)}), together);  // other random numbers
  plan.stream -= 4;
  EXPECT_NE(write(plan, {prompts(0, 6)}, /*model=*/2), together);
  plan.seed = 6;
  EXPECT_NE(write(plan, {prompts(0, 6)}), together);
}

TEST(OnPolicy, MoreTextsThanAreWrittenAtATime) {
  const int64_t count = kTextsAtATime + 9;
  const WritingPlan plan{.length = 8, .ends = {}, .seed = 5};
  std::vector<TrainBatch> batches{prompts(0, count)};
  const auto rows = write(plan, batches);
  ASSERT_EQ(std::ssize(rows), count);
  const WritingPlan later{.length = 8, .ends = {}, .seed = 5, .stream = count - 1};
  EXPECT_EQ(write(later, {prompts(count - 1, 1)}).front(), rows.back());
}

TEST(OnPolicy, FrozenAttentionTakesNoGradient) {
  ParameterStore store(decoder_parameters(test::hybrid_config()), ParameterStore::Use::kTrained,
                       at::kFloat, at::kCPU);
  test::fill_random(store, 3);
  const DecoderWeights weights = with_frozen_attention(bind_decoder(test::hybrid_config(), store));
  std::vector<TrainBatch> batches{prompts(0, 3)};
  write_on(student(), Machine(), {.length = kLength, .ends = {}, .seed = 1}, batches);
  const auto teacher = test::random_model(test::hybrid_config(), 9);
  on_policy_step(weights, *teacher, Machine(), Divergence::kReverse)(batches[0], 30);
  for (const ParameterSpec& spec : store.specs()) {
    const double most = store.view(store.grad(), spec.name).abs().max().item<double>();
    const bool is_kept = spec.name.starts_with("model.layers.1.self_attn.");
    EXPECT_EQ(most == 0, is_kept) << spec.name;
  }
}

TEST(OnPolicy, RefusesWhatCannotBe) {
  OnPolicyRecipe recipe;
  recipe.prompt_tokens = recipe.sequence_length;
  EXPECT_THAT(test::error_of([&] { check_recipe(recipe); }),
              HasSubstr("on_policy.prompt_tokens: 512 leave no room to write"));
  recipe = {};
  recipe.freeze_attention = true;
  check_recipe(recipe);
  recipe.weight_decay = 0.1;
  EXPECT_THAT(test::error_of([&] { check_recipe(recipe); }),
              HasSubstr("on_policy.weight_decay = 0.1 would shrink"));
}

}  // namespace
}  // namespace halo
