// Held-out text: next-token loss, KL of a student from its teacher, both by position. Every figure
// is kept a row, so that callers can bootstrap and pair models.
#pragma once

#include <functional>
#include <vector>

#include "halo/eval/statistics.h"
#include "halo/formats/token_shard.h"
#include "halo/model/decoder.h"
#include "halo/runtime/deal.h"
#include "halo/tokenizer/tokenizer.h"

namespace halo {

// What is searched with (selection, logit scale) is never reported: the first and the second part
// of a held-out shard, cut at a document border where there is one in the second half.
enum class TextPart { kSearch, kReport };

struct TokenRange {
  int64_t begin = 0, end = 0;
};
TokenRange text_range(const TokenShard& shard, TextPart part);

enum class TextRows {
  kDocuments,  // pieces of one document each, row_length tokens at most; clusters are documents
  kStream,     // row_length tokens each, whatever documents they cross; clusters are rows
};

struct HeldOutArgs {
  TextPart part = TextPart::kReport;
  TextRows rows = TextRows::kDocuments;
  int64_t row_length = 1024;
  int64_t max_tokens = 200'000;  // more text than this is thinned evenly, by rows
};

// Rows of two tokens and more, each scored from position 0 with nothing before it.
struct HeldOutText {
  std::vector<std::vector<int64_t>> rows;
  std::vector<int64_t> clusters;  // of each row
};
// An Error that names the key if the shard has no such row.
void check_held_out_text(const std::string& key, const TokenShard& shard, const HeldOutArgs& args);
HeldOutText held_out_text(const TokenShard& shard, const HeldOutArgs& args);
// Bytes of text that the predicted tokens (all but each row's first) stand for; special tokens
// count none.
int64_t predicted_bytes(const HeldOutText& text, const Tokenizer& tokenizer);

// A text as decoder batches, made once and scored with any number of models.
class TextBatches {
 public:
  // Rows stay whole: a row longer than max_batch_tokens is a batch of its own.
  TextBatches(HeldOutText text, int64_t training_length, at::Device device,
              Kernels kernels = Kernels::kFast, int64_t max_batch_tokens = 8192);

  struct Item {
    Batch batch;
    at::Tensor targets;  // [N] int64 on the device; kIgnoreTarget at a row's end
    size_t first_row;
  };
  const std::vector<Item>& items() const { return items_; }
  const HeldOutText& text() const { return text_; }
  // Borders of the position buckets: 0, T/16, T/8, .. T/2, T, 2T, .. with T = training_length; the
  // last one is the length of the longest row.
  const std::vector<int64_t>& edges() const { return edges_; }

 private:
  HeldOutText text_;
  std::vector<int64_t> edges_;
  std::vector<Item> items_;
};

// Sums over the predicted tokens of each row and position bucket, [R, P] row-major. A prediction's
// position is that of the token it is made from.
struct TextScores {
  std::vector<int64_t> clusters;         // [R]
  std::vector<int64_t> edges;            // [P + 1]
  std::vector<double> tokens, loss, kl;  // nats; kl is empty without a teacher
  std::vector<double> top1;  // where both models' likeliest token is the same; empty without
                             // TeacherStates::best

  size_t num_rows() const { return clusters.size(); }
  size_t num_buckets() const { return edges.size() - 1; }
};

// A teacher's final hidden states on a text, computed once for many students.
struct TeacherStates {
  at::Tensor head;                 // [V, D']
  std::vector<at::Tensor> hidden;  // [N, D'] of each batch
  std::vector<at::Tensor> best;    // [N] int64 of each batch: the likeliest next token
};
// `with_best`: also its likeliest tokens, so that students can be compared with them (top1). Of
// `ranks` this one gets those of the batches that it scores.
TeacherStates teacher_states(const DecoderWeights& teacher, const TextBatches& text,
                             bool with_best = false, const Communicator& ranks = one_rank());

// `on_batch` sees the number of batches done. Ranks deal the batches among themselves: the same
// bits whatever their number.
TextScores score_text(const DecoderWeights& model, const TextBatches& text,
                      const TeacherStates* teacher = nullptr,
                      const std::function<void(size_t done)>& on_batch = {},
                      Communicator& ranks = one_rank());
// The same of hidden states that there are: `hidden_of` a batch is asked for those that this rank
// scores. `head`: of what had them.
TextScores score_hidden(const std::function<at::Tensor(size_t batch)>& hidden_of,
                        const Weight& head, const TextBatches& text, const TeacherStates* teacher,
                        const std::function<void(size_t done)>& on_batch = {},
                        Communicator& ranks = one_rank());

// The sums as ranks tell them each other, and again, of the same text with a teacher or without.
void pack(const TextScores& scores, Packer& to);
TextScores unpack_text(Unpacker& from, const TextBatches& text, const TeacherStates* teacher);
// Its two halves, for callers with hidden states of their own (shared prefixes).
TextScores empty_scores(const TextBatches& text, const TeacherStates* teacher);
void add_scores(const TextBatches& text, size_t batch, const at::Tensor& hidden, const Weight& head,
                const TeacherStates* teacher, TextScores& scores);

// Sums a row [R] of one of the vectors, over the buckets from position `from` (one of the edges)
// on.
std::vector<double> row_sums(const TextScores& scores, const std::vector<double>& values,
                             int64_t from = 0);
Estimate mean_loss(const TextScores& scores, int64_t from = 0);
Estimate mean_kl(const TextScores& scores, int64_t from = 0);
Estimate mean_top1(const TextScores& scores, int64_t from = 0);
// Mean of (loss of a - loss of b) on the same text, with the standard error of the difference.
Estimate loss_difference(const TextScores& a, const TextScores& b);
double bits_per_byte(const TextScores& scores, int64_t bytes);

// {"loss", "stderr", "n", "clusters", "bits_per_byte", "kl", "kl_stderr", "top1", "top1_stderr",
//  "by_position": [{"from", "to", and the same without bits_per_byte}]}
json::object text_to_json(const TextScores& scores, int64_t bytes);

}  // namespace halo
