#include "halo/eval/needle.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <iterator>

#include "ATen/ATen.h"
#include "halo/base/check.h"
#include "halo/engine/generate.h"
#include "halo/model/model_testing.h"
#include "tests/testing.h"

namespace halo {
namespace {

using test::random_tokens;

// Random weights know no needles, so the right answers are made what the model would say.
class NeedleTest : public testing::Test {
 protected:
  std::vector<int64_t> prompt(const NeedleTask& task, size_t question) const {
    const NeedleQuestion& asked = task.haystack.questions[question];
    std::vector<int64_t> ids(task.haystack.ids.begin(), task.haystack.ids.begin() + asked.prefix);
    ids.insert(ids.end(), asked.ids.begin(), asked.ids.end());
    return ids;
  }

  // Two questions with a needle of 4 tokens, then the rest of the text and 5 tokens to ask. The
  // answer is `answer_tokens` long.
  NeedleTask task(int64_t length, uint64_t seed, int64_t answer_tokens = kNeedleDigits) {
    const int64_t text = length - kNeedleDigits - 4 - 5;
    NeedleTask task{length, {random_tokens(text, seed), {}}};
    const std::vector<int64_t>& ids = task.haystack.ids;
    for (double depth : {0.25, 0.75}) {
      const auto prefix = static_cast<int64_t>(depth * static_cast<double>(text));
      std::vector<int64_t> rest = random_tokens(4, seed + depth * 100);
      rest.insert(rest.end(), ids.begin() + prefix, ids.end());
      std::ranges::copy(random_tokens(5, seed + depth * 200), std::back_inserter(rest));
      task.haystack.questions.push_back({"key", depth, prefix, std::move(rest), {}});
    }
    for (size_t q = 0; q < 2; ++q) {
      task.haystack.questions[q].answer = greedy(prompt(task, q), answer_tokens);
    }
    return task;
  }

  std::vector<int64_t> greedy(const std::vector<int64_t>& prompt, int64_t max_tokens) const {
    Scheduler scheduler(weights_, {.kernels = Kernels::kReference});
    return answer(scheduler, {{.prompt = prompt, .max_tokens = max_tokens}})[0].tokens;
  }

  // ln p of the answer, each token after the true ones before it, over 7 digits; from nothing.
  double plain_logprob(const NeedleTask& task, size_t question) const {
    std::vector<int64_t> ids = prompt(task, question);
    double sum = 0;
    for (int64_t digit : task.haystack.questions[question].answer) {
      const at::Tensor hidden = test::plain_decode(*weights_, ids, Kernels::kReference);
      const at::Tensor last = logits(*weights_, hidden.slice(0, -1), Kernels::kReference);
      sum += last[0].to(at::kDouble).log_softmax(0)[digit].item<double>();
      ids.push_back(digit);
    }
    return sum / kNeedleDigits;
  }

  std::shared_ptr<const DecoderWeights> weights_ = test::random_model(test::hybrid_config());
  Engine engine_{weights_, {Kernels::kReference, 8, 48}};
};

TEST_F(NeedleTest, TeacherForcedScoresAreThoseOfGreedyDecoding) {
  std::vector<NeedleTask> tasks = {task(30, 1), task(30, 2, 3), task(50, 3)};
  tasks[0].haystack.questions[1].answer[6] = (tasks[0].haystack.questions[1].answer[6] + 1) % 61;
  tasks[2].haystack.questions[0].answer[0] = (tasks[2].haystack.questions[0].answer[0] + 1) % 61;
  std::vector<size_t> done;
  const auto items = score_needles(engine_, tasks, [&](size_t n) { done.push_back(n); });
  EXPECT_EQ(done, (std::vector<size_t>{2, 3}));
  ASSERT_EQ(items.size(), 6u);
  for (size_t i = 0; i < 6; ++i) {
    const NeedleTask& task = tasks[i / 2];
    const std::vector<int64_t>& answer = task.haystack.questions[i % 2].answer;
    const auto said = greedy(prompt(task, i % 2), std::ssize(answer));
    EXPECT_EQ(items[i].correct, said == answer);
    EXPECT_EQ(items[i].correct, i != 1 && i != 4);
    EXPECT_NEAR(items[i].logprob, plain_logprob(task, i % 2), 1e-5);
    EXPECT_EQ(items[i].length, task.length);
    EXPECT_EQ(items[i].depth, i % 2 ? 0.75 : 0.25);
    EXPECT_EQ(items[i].haystack, static_cast<int64_t>(i / 2));
  }
  EXPECT_EQ(engine_.slots().num_used(), 0);
  EXPECT_EQ(engine_.blocks().num_used(), 0);
}

TEST(NeedleResultTest, AccuracyIsClusteredByHaystack) {
  // Haystacks with 2 of 2, 1 of 2, 0 of 2: mean 1/2, rests 1, 0, -1, so sqrt(3/2 * 2) / 6.
  std::vector<NeedleItem> items;
  for (int64_t haystack = 0; haystack < 3; ++haystack) {
    for (int64_t q = 0; q < 2; ++q) {
      items.push_back({128, q ? 0.9 : 0.1, haystack, haystack + q < 2, -1.0 - haystack});
    }
  }
  items.push_back({256, 0.1, 3, true, -0.5});
  const Estimate accuracy = needle_accuracy(items_of_length(items, 128));
  EXPECT_DOUBLE_EQ(accuracy.mean, 0.5);
  EXPECT_DOUBLE_EQ(accuracy.standard_error, std::sqrt(3.0) / 6);
  EXPECT_DOUBLE_EQ(needle_logprob(items_of_length(items, 128)).mean, -2);

  const json::object object = needles_to_json(items);
  ASSERT_EQ(object.size(), 2u);
  const json::object& at_128 = object.at("128").as_object();
  EXPECT_EQ(at_128.at("accuracy").as_double(), 0.5);
  EXPECT_EQ(at_128.at("n").as_int64(), 6);
  EXPECT_EQ(at_128.at("clusters").as_int64(), 3);
  EXPECT_EQ(at_128.at("logprob").as_double(), -2);
  const json::array& depths = at_128.at("by_depth").as_array();
  ASSERT_EQ(depths.size(), 2u);
  EXPECT_EQ(depths[0].at("depth").as_double(), 0.1);
  EXPECT_DOUBLE_EQ(depths[0].at("accuracy").as_double(), 2.0 / 3);
  EXPECT_DOUBLE_EQ(depths[1].at("accuracy").as_double(), 1.0 / 3);
  EXPECT_TRUE(object.at("256").at("stderr").is_null());
}

TEST(MakeNeedlesTest, HaystacksComeFromTheirPartAndFitTheLength) {
  const Tokenizer tokenizer(
      train_bpe({"the secret number of a thing is what"}, 262, {"<|endoftext|>"}),
      "tokenizer.json");
  const NeedleWriter writer(tokenizer);
  // Search text is all 'a', report text all 'b'.
  const test::Folder folder;
  const auto path = folder / "text.halotok";
  const int64_t a = tokenizer.token_id("a").value(), b = tokenizer.token_id("b").value();
  TokenShardWriter shard_writer(path, "hash", tokenizer.vocab_size(), "{}");
  shard_writer.add_document(std::vector<int64_t>(1000, a));
  shard_writer.add_document(std::vector<int64_t>(1000, b));
  shard_writer.finish();
  const TokenShard shard(path);

  NeedleArgs args;
  args.lengths = {400, 800};
  args.haystacks = 3;
  args.depths = {0.2, 0.8};
  const auto report = make_needles(writer, shard, args);
  args.pool = NeedlePool::kSearch;
  const auto search = make_needles(writer, shard, args);
  ASSERT_EQ(report.size(), 6u);
  for (const auto& [tasks, own] : {std::pair(report, b), std::pair(search, a)}) {
    for (const NeedleTask& task : tasks) {
      // The haystack is text of its part and nothing else.
      const auto text = static_cast<int64_t>(task.haystack.ids.size());
      EXPECT_EQ(std::ranges::count(task.haystack.ids, own), text);
      ASSERT_EQ(task.haystack.questions.size(), 2u);
      int64_t longest = 0, previous = 0;
      for (const NeedleQuestion& question : task.haystack.questions) {
        EXPECT_NEAR(question.prefix, question.depth * text, 0.5);
        EXPECT_GE(question.prefix, previous);
        previous = question.prefix;
        longest = std::max(longest, question.prefix + static_cast<int64_t>(question.ids.size()));
      }
      EXPECT_EQ(longest + kNeedleDigits, task.length);
    }
  }
  EXPECT_EQ(report[5].length, 800);
  EXPECT_NE(report[0].haystack.questions[0].answer, report[1].haystack.questions[0].answer);
  EXPECT_EQ(make_needles(writer, shard, args)[2].haystack.ids, search[2].haystack.ids);
  args.lengths = {1001};
  EXPECT_THROW(make_needles(writer, shard, args), Error);
}

// Evaluation cuts haystacks as training does: documents go on into each other without their begin
// and end tokens, and the part into itself.
TEST(MakeNeedlesTest, HaystacksAreOneDocument) {
  const Tokenizer tokenizer(
      train_bpe({"the secret number of a thing is what"}, 262, {"<|endoftext|>"}),
      "tokenizer.json");
  const int64_t begin = tokenizer.token_id("!").value(), end = tokenizer.document_end();
  const int64_t a = tokenizer.token_id("a").value(), b = tokenizer.token_id("b").value();
  const NeedleWriter writer(tokenizer, begin);
  const test::Folder folder;
  TokenShardWriter shard_writer(folder / "text.halotok", "hash", tokenizer.vocab_size(), "{}");
  for (int d = 0; d < 20; ++d) {
    shard_writer.add_document(std::vector<int64_t>{begin, a, b, a, b, a, b, a, b, end});
  }
  shard_writer.finish();
  const TokenShard shard(folder / "text.halotok");
  NeedleArgs args;
  args.lengths = {160};
  args.haystacks = 20;
  args.pool = NeedlePool::kTraining;  // all text: 160 tokens without borders
  for (const NeedleTask& task : make_needles(writer, shard, args)) {
    const std::vector<int64_t>& ids = task.haystack.ids;
    EXPECT_EQ(ids.front(), begin);
    for (size_t i = 1; i < ids.size(); ++i) {
      EXPECT_TRUE(ids[i] == a || ids[i] == b);
      if (i > 1) EXPECT_NE(ids[i], ids[i - 1]);
    }
  }
  args.lengths = {161};
  EXPECT_THROW(make_needles(writer, shard, args), Error);
}

}  // namespace
}  // namespace halo
