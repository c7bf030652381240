#include "halo/eval/held_out.h"

#include <gtest/gtest.h>

#include <cmath>
#include <filesystem>
#include <numeric>
#include <set>

#include "ATen/ATen.h"
#include "halo/base/check.h"
#include "halo/model/model_testing.h"
#include "tests/testing.h"

namespace halo {
namespace {

using test::random_tokens;

// A shard with documents of the given lengths whose tokens count up from 0 over the whole shard.
class ShardFile {
 public:
  explicit ShardFile(const std::vector<int64_t>& lengths) {
    TokenShardWriter writer(path_, "hash", 60'000, "{}");
    int64_t next = 0;
    for (int64_t length : lengths) {
      std::vector<int64_t> tokens(length);
      std::iota(tokens.begin(), tokens.end(), next);
      next += length;
      writer.add_document(tokens);
    }
    writer.finish();
  }
  TokenShard open() const { return TokenShard(path_); }

 private:
  const test::Folder folder_;
  const std::filesystem::path path_ = folder_ / "text.halotok";
};

TEST(HeldOutTextTest, PartsMeetAtADocumentBorder) {
  const ShardFile file({30, 40, 30});
  const TokenShard shard = file.open();
  const TokenRange search = text_range(shard, TextPart::kSearch);
  const TokenRange report = text_range(shard, TextPart::kReport);
  EXPECT_EQ(search.begin, 0);
  EXPECT_EQ(search.end, 70);
  EXPECT_EQ(report.begin, 70);
  EXPECT_EQ(report.end, 100);
  const ShardFile one({41});
  EXPECT_EQ(text_range(one.open(), TextPart::kReport).begin, 20);
}

TEST(HeldOutTextTest, DocumentRowsStayInTheirDocument) {
  const ShardFile file({5, 1, 9, 15, 12});
  const auto text = held_out_text(
      file.open(), {TextPart::kSearch, TextRows::kDocuments, /*row_length=*/4, 1'000});
  std::vector<std::vector<int64_t>> expected = {
      {0, 1, 2, 3},     {6, 7, 8, 9},     {10, 11, 12, 13}, {15, 16, 17, 18},
      {19, 20, 21, 22}, {23, 24, 25, 26}, {27, 28, 29}};
  EXPECT_EQ(text.rows, expected);
  EXPECT_EQ(text.clusters, (std::vector<int64_t>{0, 2, 2, 3, 3, 3, 3}));
}

TEST(HeldOutTextTest, StreamRowsAreFullAndThinnedEvenly) {
  const ShardFile file({50, 50, 63});
  const HeldOutArgs args{TextPart::kSearch, TextRows::kStream, /*row_length=*/10, 1'000};
  const auto all = held_out_text(file.open(), args);
  ASSERT_EQ(all.rows.size(), 10u);
  EXPECT_EQ(all.rows[7].front(), 70);
  EXPECT_EQ(std::set<int64_t>(all.clusters.begin(), all.clusters.end()).size(), 10u);
  auto fewer = args;
  fewer.max_tokens = 30;
  const auto thinned = held_out_text(file.open(), fewer);
  ASSERT_EQ(thinned.rows.size(), 3u);
  EXPECT_EQ(thinned.rows[0].front(), 0);
  EXPECT_EQ(thinned.rows[1].front(), 30);
  EXPECT_EQ(thinned.rows[2].front(), 60);
  fewer.row_length = 101;
  EXPECT_THROW(held_out_text(file.open(), fewer), Error);
}

class ScoreTest : public testing::Test {
 protected:
  ScoreTest() {
    for (int64_t length : {9, 40, 2, 21}) text_.rows.push_back(random_tokens(length, length));
    text_.clusters = {0, 1, 1, 2};
  }
  TextBatches batches() const {
    return {text_, /*training_length=*/16, at::kCPU, Kernels::kFast, /*max_batch_tokens=*/30};
  }
  // ln p of every next token, [T, V] fp64, row by row.
  static at::Tensor log_probs(const DecoderWeights& model, const std::vector<int64_t>& row) {
    const at::Tensor hidden = test::plain_decode(model, row, Kernels::kFast);
    return logits(model, hidden, Kernels::kFast).to(at::kDouble).log_softmax(-1);
  }

  HeldOutText text_;
  std::shared_ptr<const DecoderWeights> teacher_ = test::random_model(test::transformer_config());
  std::shared_ptr<const DecoderWeights> student_ = test::random_model(test::hybrid_config(), 2);
};

TEST_F(ScoreTest, EdgesFollowTheTrainingLength) {
  EXPECT_EQ(batches().edges(), (std::vector<int64_t>{0, 1, 2, 4, 8, 16, 32, 40}));
  EXPECT_EQ(TextBatches(text_, 12, at::kCPU).edges(),
            (std::vector<int64_t>{0, 1, 3, 6, 12, 24, 40}));
  EXPECT_EQ(TextBatches(text_, 1024, at::kCPU).edges(), (std::vector<int64_t>{0, 40}));
}

TEST_F(ScoreTest, RowsArePackedWhole) {
  const TextBatches batches = this->batches();
  ASSERT_EQ(batches.items().size(), 3u);
  EXPECT_EQ(batches.items()[1].batch.sequences.num_tokens(), 40);
  EXPECT_EQ(batches.items()[2].first_row, 2u);
  EXPECT_EQ(batches.items()[2].batch.sequences.count(), 2);
}

TEST_F(ScoreTest, LossAndKlEqualAPlainComputation) {
  const TextBatches batches = this->batches();
  const TeacherStates teacher = teacher_states(*teacher_, batches);
  size_t seen = 0;
  const TextScores scores =
      score_text(*student_, batches, &teacher, [&](size_t done) { seen = done; });
  EXPECT_EQ(seen, 3u);

  const std::vector<int64_t> edges = batches.edges();
  const size_t buckets = edges.size() - 1;
  double nats = 0, counted = 0;
  for (size_t r = 0; r < text_.rows.size(); ++r) {
    const auto& row = text_.rows[r];
    const at::Tensor p = log_probs(*teacher_, row), q = log_probs(*student_, row);
    const at::Tensor kl = (p.exp() * (p - q)).sum(-1);
    for (size_t b = 0; b < buckets; ++b) {
      double loss_sum = 0, kl_sum = 0, count = 0;
      for (int64_t t = edges[b]; t < std::min<int64_t>(edges[b + 1], row.size() - 1); ++t) {
        loss_sum -= q[t][row[t + 1]].item<double>();
        kl_sum += kl[t].item<double>();
        count += 1;
      }
      EXPECT_EQ(scores.tokens[r * buckets + b], count);
      EXPECT_NEAR(scores.loss[r * buckets + b], loss_sum, 2e-5 * (1 + count));
      EXPECT_NEAR(scores.kl[r * buckets + b], kl_sum, 2e-5 * (1 + count));
      nats += loss_sum;
      counted += count;
    }
  }
  EXPECT_EQ(mean_loss(scores).n, 8 + 39 + 1 + 20);
  EXPECT_EQ(mean_loss(scores).clusters, 3);
  EXPECT_NEAR(mean_loss(scores).mean, nats / counted, 2e-5);
  EXPECT_EQ(mean_loss(scores, 16).n, (39 - 16) + (20 - 16));
  EXPECT_EQ(mean_loss(scores, 16).clusters, 2);
  EXPECT_NEAR(bits_per_byte(scores, 100), nats / std::log(2.0) / 100, 2e-5);
  EXPECT_THROW(mean_loss(scores, 17), std::exception);
}

TEST_F(ScoreTest, AModelHasNoKlAndNoDifferenceFromItself) {
  const TextBatches batches = this->batches();
  const TeacherStates teacher = teacher_states(*teacher_, batches);
  const TextScores own = score_text(*teacher_, batches, &teacher);
  EXPECT_NEAR(mean_kl(own).mean, 0, 1e-6);
  const TextScores other = score_text(*student_, batches, &teacher);
  EXPECT_GT(mean_kl(other).mean, 0.1);
  EXPECT_EQ(loss_difference(own, own).mean, 0);
  EXPECT_EQ(loss_difference(own, own).standard_error, 0);
  EXPECT_NEAR(loss_difference(other, own).mean, mean_loss(other).mean - mean_loss(own).mean, 1e-12);
}

TEST_F(ScoreTest, ASharedPrefixGivesTheSameScores) {
  const TextBatches batches = this->batches();
  TextScores scores = empty_scores(batches, nullptr);
  at::NoGradGuard no_grad;
  for (size_t b = 0; b < batches.items().size(); ++b) {
    const Batch& batch = batches.items()[b].batch;
    const at::Tensor below = decode_layers(*student_, 0, 1, embed(*student_, batch), batch);
    const at::Tensor hidden = final_norm(*student_, decode_layers(*student_, 1, 3, below, batch));
    add_scores(batches, b, hidden, student_->head, nullptr, scores);
  }
  EXPECT_NEAR(mean_loss(scores).mean, mean_loss(score_text(*student_, batches)).mean, 1e-6);
}

TEST_F(ScoreTest, JsonHoldsEveryFigure) {
  const TextBatches batches = this->batches();
  const TextScores scores = score_text(*student_, batches);
  const json::object object = text_to_json(scores, 200);
  EXPECT_EQ(object.at("loss").as_double(), mean_loss(scores).mean);
  EXPECT_EQ(object.at("stderr").as_double(), mean_loss(scores).standard_error);
  EXPECT_EQ(object.at("n").as_int64(), 68);
  EXPECT_EQ(object.at("bits_per_byte").as_double(), bits_per_byte(scores, 200));
  EXPECT_FALSE(object.contains("kl"));
  const json::array& positions = object.at("by_position").as_array();
  ASSERT_EQ(positions.size(), 7u);
  int64_t n = 0;
  for (const json::value& bucket : positions) n += bucket.at("n").as_int64();
  EXPECT_EQ(n, 68);
  EXPECT_EQ(positions[5].at("from").as_int64(), 16);
  EXPECT_EQ(positions[5].at("to").as_int64(), 32);

  const TeacherStates teacher = teacher_states(*teacher_, batches);
  const json::object with_kl = text_to_json(score_text(*student_, batches, &teacher), 200);
  EXPECT_GT(with_kl.at("kl").as_double(), 0);
  EXPECT_GT(with_kl.at("kl_stderr").as_double(), 0);
}

TEST(PredictedBytesTest, SpecialTokensAndFirstTokensCountNothing) {
  const Tokenizer tokenizer(train_bpe({"the cat and the hat, the end"}, 262, {"<|endoftext|>"}),
                            "tokenizer.json");
  HeldOutText text;
  for (const char* row : {"the hat<|endoftext|>", "cat \xc3\xa9"}) {
    text.rows.push_back(tokenizer.encode(row));
  }
  text.clusters = {0, 1};
  int64_t first = 0;
  for (const auto& row : text.rows) {
    first += static_cast<int64_t>(tokenizer.token_bytes(row[0]).size());
  }
  EXPECT_EQ(predicted_bytes(text, tokenizer), 7 + 6 - first);
}

}  // namespace
}  // namespace halo
