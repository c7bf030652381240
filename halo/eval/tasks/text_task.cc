#include "halo/eval/tasks/text_task.h"

#include <cmath>
#include <numbers>

#include "halo/base/check.h"
#include "halo/data/readers.h"

namespace halo {
namespace {

namespace fs = std::filesystem;

std::string read_text(const fs::path& directory, const std::string& name) {
  for (const char* ending : {".txt", ".txt.zst", ".txt.gz"}) {
    const fs::path file = directory / (name + ending);
    if (!fs::exists(file)) continue;
    std::string text;
    stream_file(file, [&](std::string_view bytes) { text += bytes; });
    return text;
  }
  throw_error("{}: no {}.txt, .txt.zst or .txt.gz there", directory.string(), name);
}

// Figures of a row, over all of it and over each bucket.
Outcome row_outcome(const TextScores& scores, size_t row, int64_t bytes) {
  const size_t buckets = scores.num_buckets(), begin = row * buckets;
  const auto mean = [&](const std::vector<double>& values, size_t first, size_t last) {
    double sum = 0, tokens = 0;
    for (size_t b = first; b < last; ++b) {
      sum += values[begin + b];
      tokens += scores.tokens[begin + b];
    }
    return sum / tokens;
  };
  Outcome outcome;
  const double loss = mean(scores.loss, 0, buckets);
  double tokens = 0;
  for (size_t b = 0; b < buckets; ++b) tokens += scores.tokens[begin + b];
  outcome.figures = {
      {"perplexity", loss, Figure::Mean::kExp},
      {"bits_per_byte", loss * tokens / std::numbers::ln2 / static_cast<double>(bytes)}};
  const auto add = [&](const std::string& name, const std::vector<double>& values) {
    if (values.empty()) return;
    outcome.figures.push_back({name, mean(values, 0, buckets)});
    for (size_t b = 0; b < buckets; ++b) {
      outcome.figures.push_back(
          {fmt::format("{}@{}-{}", name, scores.edges[b], scores.edges[b + 1]),
           mean(values, b, b + 1)});
    }
  };
  add("loss", scores.loss);
  add("kl", scores.kl);
  add("top1", scores.top1);
  for (const Figure& figure : outcome.figures) {
    if (figure.mean == Figure::Mean::kPlain) outcome.sample[figure.name] = figure.value;
  }
  return outcome;
}

}  // namespace

const std::vector<std::string>& TextTask::names() {
  static const std::vector<std::string> names = {"wikitext2-test", "wikitext2-valid"};
  return names;
}

TextTask::TextTask(const std::string& name, const fs::path& directory, int64_t length,
                   int64_t limit)
    : name_(name), text_(read_text(directory, name)), length_(length), limit_(limit) {}

TaskResult TextTask::run(const DecoderWeights& weights, const LanguageModel& model, Kernels kernels,
                         const std::function<void(const std::string& id, const Outcome&)>& on_row,
                         Communicator& ranks) {
  // The token that begins every text begins every row.
  const std::vector<int64_t> begin = model.encode("");
  const std::vector<int64_t> tokens = model.tokenizer().encode(text_);
  const int64_t room = length_ - static_cast<int64_t>(begin.size());
  HeldOutText rows;
  for (int64_t at = 0; room > 1 && at + room <= std::ssize(tokens); at += room) {
    if (limit_ > 0 && std::ssize(rows.rows) == limit_) break;
    std::vector<int64_t>& row = rows.rows.emplace_back(begin);
    row.insert(row.end(), tokens.begin() + at, tokens.begin() + at + room);
    rows.clusters.push_back(std::ssize(rows.clusters));
  }
  if (rows.rows.empty()) {
    throw_error("{}: its {} tokens do not fill a row of {}; give a shorter --lengths", name_,
                tokens.size(), length_);
  }
  const TextBatches batches(rows, length_, weights.embedding.value.device(), kernels);
  const bool is_first = !first_rows_;
  const bool same_tokens = !is_first && first_rows_->rows == rows.rows &&
                           first_.head.size(0) == weights.head.value.size(0);
  if (is_first) {
    first_ = teacher_states(weights, batches, /*with_best=*/true, ranks);
    first_rows_ = rows;
  }
  const auto hidden_of = [&](size_t batch) { return first_.hidden[batch]; };
  const TextScores scores =
      is_first ? score_hidden(hidden_of, weights.head, batches, nullptr, {}, ranks)
               : score_text(weights, batches, same_tokens ? &first_ : nullptr, {}, ranks);
  std::vector<std::string> ids;
  std::vector<Outcome> outcomes;
  for (size_t r = 0; r < rows.rows.size(); ++r) {
    const int64_t bytes = predicted_bytes({{rows.rows[r]}, {0}}, model.tokenizer());
    ids.push_back(std::to_string(r));
    outcomes.push_back(row_outcome(scores, r, bytes));
    on_row(ids.back(), outcomes.back());
  }
  return summarise(name_, ids, outcomes);
}

}  // namespace halo
