// Scores of a text, and what is reported from them.
#include "halo/eval/held_out.h"

#include <algorithm>
#include <array>
#include <cmath>

#include "ATen/ATen.h"
#include "halo/base/check.h"
#include "halo/base/progress.h"
#include "halo/base/range.h"
#include "halo/kernels/linear/linear.h"
#include "halo/kernels/linear_cross_entropy/linear_cross_entropy.h"
#include "halo/kernels/linear_kl/linear_kl.h"

namespace halo {

namespace {

// [N] int64: the likeliest token after each hidden state, a chunk of rows at a time.
at::Tensor best_tokens(const at::Tensor& hidden, const at::Tensor& head) {
  constexpr int64_t kMaxLogits = int64_t{1} << 26;
  const int64_t rows = std::max<int64_t>(1, kMaxLogits / head.size(0));
  std::vector<at::Tensor> best;
  for (int64_t begin = 0; begin < hidden.size(0); begin += rows) {
    const at::Tensor part = hidden.narrow(0, begin, std::min(rows, hidden.size(0) - begin));
    best.push_back(part.matmul(head.t()).argmax(1));
  }
  return at::cat(best);
}

}  // namespace

TeacherStates teacher_states(const DecoderWeights& teacher, const TextBatches& text, bool with_best,
                             const Communicator& ranks) {
  at::NoGradGuard no_grad;
  TeacherStates states{dense_matrix(teacher.head, teacher.norm.value.scalar_type()), {}, {}};
  Progress progress("teacher on held-out text", std::ssize(text.items()));
  for (const auto& item : text.items()) {
    const bool is_own = does_piece(ranks, std::ssize(states.hidden));
    states.hidden.push_back(is_own ? decode(teacher, item.batch) : at::Tensor());
    if (with_best) {
      states.best.push_back(is_own ? best_tokens(states.hidden.back(), states.head) : at::Tensor());
    }
    progress.update(std::ssize(states.hidden));
  }
  return states;
}

namespace {

template <class Scores>
auto vectors_of(Scores& scores) {
  return std::array{&scores.tokens, &scores.loss, &scores.kl, &scores.top1};
}

}  // namespace

TextScores empty_scores(const TextBatches& text, const TeacherStates* teacher) {
  TextScores scores{text.text().clusters, text.edges(), {}, {}, {}, {}};
  const size_t size = scores.num_rows() * scores.num_buckets();
  scores.tokens.resize(size);
  scores.loss.resize(size);
  if (teacher) scores.kl.resize(size);
  if (teacher && !teacher->best.empty()) scores.top1.resize(size);
  return scores;
}

void add_scores(const TextBatches& text, size_t batch, const at::Tensor& hidden, const Weight& head,
                const TeacherStates* teacher, TextScores& scores) {
  at::NoGradGuard no_grad;
  const TextBatches::Item& item = text.items().at(batch);
  HALO_CHECK((teacher != nullptr) == !scores.kl.empty(),
             "held-out text: KL scores and a teacher go together");
  const at::Tensor matrix = dense_matrix(head, hidden.scalar_type());
  // Summed on the host in double and in a fixed order: the figures do not depend on threads.
  const at::Tensor losses =
      token_losses(hidden, matrix, item.targets, item.batch.kernels).cpu().contiguous();
  at::Tensor kls, agreed;
  if (teacher) {
    kls = token_kl(hidden, matrix, teacher->hidden.at(batch), teacher->head).cpu().contiguous();
  }
  if (!scores.top1.empty()) {
    agreed = best_tokens(hidden, matrix).eq(teacher->best.at(batch)).cpu();
  }
  const float* loss = losses.const_data_ptr<float>();
  const float* kl = teacher ? kls.const_data_ptr<float>() : nullptr;
  const bool* same = agreed.defined() ? agreed.const_data_ptr<bool>() : nullptr;
  const Sequences& rows = item.batch.sequences;
  for (int64_t r = 0; r < rows.count(); ++r) {
    const size_t row_begin = (item.first_row + r) * scores.num_buckets();
    size_t bucket = 0;
    for (int64_t position = 0; position + 1 < rows.length(r); ++position) {
      if (position == scores.edges[bucket + 1]) ++bucket;
      const size_t at = row_begin + bucket;
      scores.tokens[at] += 1;
      scores.loss[at] += loss[rows.offsets()[r] + position];
      if (kl) scores.kl[at] += kl[rows.offsets()[r] + position];
      if (same) scores.top1[at] += same[rows.offsets()[r] + position] ? 1 : 0;
    }
  }
}

TextScores score_text(const DecoderWeights& model, const TextBatches& text,
                      const TeacherStates* teacher,
                      const std::function<void(size_t done)>& on_batch, Communicator& ranks) {
  const auto hidden_of = [&](size_t batch) {
    at::NoGradGuard no_grad;
    return decode(model, text.items()[batch].batch);
  };
  return score_hidden(hidden_of, model.head, text, teacher, on_batch, ranks);
}

TextScores score_hidden(const std::function<at::Tensor(size_t)>& hidden_of, const Weight& head,
                        const TextBatches& text, const TeacherStates* teacher,
                        const std::function<void(size_t done)>& on_batch, Communicator& ranks) {
  at::NoGradGuard no_grad;
  TextScores scores = empty_scores(text, teacher);
  Progress progress("held-out text", std::ssize(text.items()));
  const auto rows_of = [&](int64_t batch) {
    const TextBatches::Item& item = text.items()[batch];
    const auto buckets = static_cast<int64_t>(scores.num_buckets());
    return Range{static_cast<int64_t>(item.first_row) * buckets,
                 item.batch.sequences.count() * buckets};
  };
  const std::vector<std::string> scored = deal(ranks, std::ssize(text.items()), [&](int64_t batch) {
    add_scores(text, batch, hidden_of(batch), head, teacher, scores);
    progress.update(batch + 1);
    if (on_batch) on_batch(batch + 1);
    const Range rows = rows_of(batch);
    Packer packed;
    for (const std::vector<double>* values : vectors_of(scores)) {
      if (values->empty()) continue;
      packed.add(std::vector(values->begin() + rows.begin, values->begin() + rows.end()));
    }
    return packed.bytes();
  });
  for (int64_t batch = 0; batch < std::ssize(scored); ++batch) {
    if (does_piece(ranks, batch)) continue;
    Unpacker packed(scored[batch]);
    for (std::vector<double>* values : vectors_of(scores)) {
      if (values->empty()) continue;
      std::ranges::copy(packed.numbers(), values->begin() + rows_of(batch).begin);
    }
  }
  return scores;
}

void pack(const TextScores& scores, Packer& to) {
  for (const std::vector<double>* values : vectors_of(scores)) to.add(*values);
}

TextScores unpack_text(Unpacker& from, const TextBatches& text, const TeacherStates* teacher) {
  TextScores scores = empty_scores(text, teacher);
  for (std::vector<double>* values : vectors_of(scores)) *values = from.numbers();
  return scores;
}

namespace {

// Sums a row over the buckets first .. last-1.
std::vector<double> bucket_sums(const TextScores& scores, const std::vector<double>& values,
                                size_t first, size_t last) {
  std::vector<double> sums(scores.num_rows());
  for (size_t r = 0; r < sums.size(); ++r) {
    for (size_t b = first; b < last; ++b) sums[r] += values[r * scores.num_buckets() + b];
  }
  return sums;
}

Estimate bucket_mean(const TextScores& scores, const std::vector<double>& values, size_t first,
                     size_t last) {
  return clustered_ratio(bucket_sums(scores, values, first, last),
                         bucket_sums(scores, scores.tokens, first, last), scores.clusters);
}

json::object buckets_to_json(const TextScores& scores, size_t first, size_t last) {
  json::object object = estimate_to_json("loss", bucket_mean(scores, scores.loss, first, last));
  if (!scores.kl.empty()) {
    const Estimate kl = bucket_mean(scores, scores.kl, first, last);
    object["kl"] = number_or_null(kl.mean);
    object["kl_stderr"] = number_or_null(kl.standard_error);
  }
  if (!scores.top1.empty()) {
    const Estimate top1 = bucket_mean(scores, scores.top1, first, last);
    object["top1"] = number_or_null(top1.mean);
    object["top1_stderr"] = number_or_null(top1.standard_error);
  }
  return object;
}

}  // namespace

std::vector<double> row_sums(const TextScores& scores, const std::vector<double>& values,
                             int64_t from) {
  const auto first = std::ranges::find(scores.edges, from);
  HALO_CHECK(first != scores.edges.end(),
             "held-out text: position {} is no border of the position buckets (longest row: {})",
             from, scores.edges.back());
  HALO_CHECK(values.size() == scores.tokens.size(), "held-out text: {} sums, expected {}",
             values.size(), scores.tokens.size());
  return bucket_sums(scores, values, first - scores.edges.begin(), scores.num_buckets());
}

Estimate mean_loss(const TextScores& scores, int64_t from) {
  return clustered_ratio(row_sums(scores, scores.loss, from), row_sums(scores, scores.tokens, from),
                         scores.clusters);
}

Estimate mean_kl(const TextScores& scores, int64_t from) {
  return clustered_ratio(row_sums(scores, scores.kl, from), row_sums(scores, scores.tokens, from),
                         scores.clusters);
}

Estimate mean_top1(const TextScores& scores, int64_t from) {
  return clustered_ratio(row_sums(scores, scores.top1, from), row_sums(scores, scores.tokens, from),
                         scores.clusters);
}

Estimate loss_difference(const TextScores& a, const TextScores& b) {
  HALO_CHECK(a.tokens == b.tokens && a.clusters == b.clusters,
             "held-out text: a difference needs scores of the same text");
  std::vector<double> difference(a.loss.size());
  std::ranges::transform(a.loss, b.loss, difference.begin(), std::minus<>());
  return bucket_mean(a, difference, 0, a.num_buckets());
}

double bits_per_byte(const TextScores& scores, int64_t bytes) {
  double nats = 0;
  for (double loss : scores.loss) nats += loss;
  return nats / std::log(2.0) / static_cast<double>(bytes);
}

json::object text_to_json(const TextScores& scores, int64_t bytes) {
  json::object object = buckets_to_json(scores, 0, scores.num_buckets());
  object["bits_per_byte"] = number_or_null(bits_per_byte(scores, bytes));
  json::array& positions = object["by_position"].emplace_array();
  for (size_t b = 0; b < scores.num_buckets(); ++b) {
    json::object bucket = {{"from", scores.edges[b]}, {"to", scores.edges[b + 1]}};
    for (auto& [key, value] : buckets_to_json(scores, b, b + 1)) bucket[key] = std::move(value);
    positions.push_back(std::move(bucket));
  }
  return object;
}

}  // namespace halo
