#include "halo/eval/continuations.h"

#include <gtest/gtest.h>

#include <numeric>

#include "ATen/ATen.h"
#include "halo/model/model_testing.h"

namespace halo {
namespace {

// Row r: `length` tokens from 1000 r on.
HeldOutText rows_of(const std::vector<int64_t>& lengths) {
  HeldOutText text;
  for (size_t r = 0; r < lengths.size(); ++r) {
    std::vector<int64_t> row(static_cast<size_t>(lengths[r]));
    std::iota(row.begin(), row.end(), 1000 * static_cast<int64_t>(r));
    text.rows.push_back(row);
    text.clusters.push_back(static_cast<int64_t>(r));
  }
  return text;
}

TEST(Continuations, OpeningsAreOfLongRowsSpreadOverTheText) {
  // 48 tokens to start with and 64 to go on: rows 1 and 3 are too short.
  const auto openings = choose_openings(rows_of({112, 111, 200, 50, 112, 112, 112, 150}), 3);
  ASSERT_EQ(openings.size(), 3u);
  std::vector<int64_t> rows;
  for (const Opening& opening : openings) {
    rows.push_back(opening.prompt.front() / 1000);
    ASSERT_EQ(opening.prompt.size(), 48u);
    ASSERT_EQ(opening.rest.size(), 64u);
    EXPECT_EQ(opening.prompt.front() % 1000, 0);
    EXPECT_EQ(opening.rest.front(), opening.prompt.back() + 1);
  }
  EXPECT_EQ(rows, (std::vector<int64_t>{2, 5, 7}));
  EXPECT_EQ(choose_openings(rows_of({112, 120}), 3).size(), 2u);
  EXPECT_TRUE(choose_openings(rows_of({111, 20}), 3).empty());
}

TEST(Continuations, AreWhatTheModelFindsLikeliest) {
  const Tokenizer tokenizer(train_bpe({"the cat"}, 257, {"<|endoftext|>"}), "tokenizer.json");
  ModelConfig config = test::hybrid_config();
  config.vocab_size = 257;
  const auto weights = test::random_model(config);
  Scheduler scheduler(weights, {.kernels = Kernels::kReference});
  Opening opening{{'t', 'h', 'e'}, {}};
  const auto said = continue_openings(scheduler, {opening}, {}, tokenizer);
  ASSERT_EQ(said.size(), 1u);
  // From nothing, a token at a time.
  std::vector<int64_t> ids = opening.prompt, made;
  while (made.size() < 64) {
    const at::Tensor hidden = test::plain_decode(*weights, ids, Kernels::kReference);
    const at::Tensor last = logits(*weights, hidden.slice(0, -1), Kernels::kReference);
    made.push_back(last[0].argmax().item<int64_t>());
    ids.push_back(made.back());
  }
  EXPECT_EQ(said[0], tokenizer.decode(made, true));
  // It ends before a token that says so.
  const auto ended = continue_openings(scheduler, {opening}, {made[1]}, tokenizer);
  const size_t end = made[0] == made[1] ? 0 : 1;
  EXPECT_EQ(ended[0],
            tokenizer.decode(std::vector<int64_t>(made.begin(), made.begin() + end), true));
}

}  // namespace
}  // namespace halo
