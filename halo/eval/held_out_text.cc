// Which text is scored: parts of a shard as rows, and rows as batches.
#include <algorithm>
#include <unordered_map>

#include "ATen/ATen.h"
#include "halo/base/check.h"
#include "halo/eval/held_out.h"
#include "halo/kernels/linear_cross_entropy/linear_cross_entropy.h"

namespace halo {

TokenRange text_range(const TokenShard& shard, TextPart part) {
  const int64_t total = shard.header().num_tokens;
  int64_t border = total / 2;
  for (int64_t d = 0; d < shard.num_documents(); ++d) {
    if (const int64_t begin = shard.document_begin(d); begin >= total / 2) {
      border = begin;
      break;
    }
  }
  return part == TextPart::kSearch ? TokenRange{0, border} : TokenRange{border, total};
}

namespace {

struct Row {
  int64_t begin, end, cluster;
};

// [begin, end) in pieces of `length` tokens; the last one may be shorter.
void cut(TokenRange range, int64_t length, int64_t cluster, std::vector<Row>& rows) {
  for (int64_t begin = range.begin; begin < range.end; begin += length) {
    rows.push_back({begin, std::min(begin + length, range.end), cluster});
  }
}

std::vector<Row> all_rows(const TokenShard& shard, const HeldOutArgs& args) {
  const TokenRange range = text_range(shard, args.part);
  std::vector<Row> rows;
  if (args.rows == TextRows::kStream) {
    cut(range, args.row_length, 0, rows);
    std::erase_if(rows, [&](const Row& row) { return row.end - row.begin < args.row_length; });
    for (size_t r = 0; r < rows.size(); ++r) rows[r].cluster = static_cast<int64_t>(r);
    return rows;
  }
  for (int64_t d = 0; d < shard.num_documents(); ++d) {
    const TokenRange document = {std::max(range.begin, shard.document_begin(d)),
                                 std::min(range.end, shard.document_end(d))};
    cut(document, args.row_length, d, rows);
  }
  std::erase_if(rows, [](const Row& row) { return row.end - row.begin < 2; });
  return rows;
}

// Evenly spaced rows with about max_tokens tokens in all, at least one.
std::vector<Row> thinned(const std::vector<Row>& rows, int64_t max_tokens) {
  int64_t total = 0;
  for (const Row& row : rows) total += row.end - row.begin;
  if (total <= max_tokens) return rows;
  const int64_t count = static_cast<int64_t>(rows.size());
  const int64_t kept =
      std::max<int64_t>(1, static_cast<int64_t>(static_cast<double>(max_tokens) / total * count));
  std::vector<Row> chosen;
  for (int64_t k = 0; k < kept; ++k) chosen.push_back(rows[k * count / kept]);
  return chosen;
}

std::vector<int64_t> position_edges(int64_t training_length, int64_t longest) {
  std::vector<int64_t> edges = {0};
  const auto add = [&](int64_t edge) {
    if (edge > edges.back() && edge < longest) edges.push_back(edge);
  };
  for (int64_t part : {16, 8, 4, 2}) add(training_length / part);
  for (int64_t edge = training_length; edge < longest; edge *= 2) add(edge);
  edges.push_back(longest);
  return edges;
}

}  // namespace

void check_held_out_text(const std::string& key, const TokenShard& shard, const HeldOutArgs& args) {
  if (args.row_length < 2) {
    throw_error("{}: rows of {} tokens predict nothing; give 2 or more", key, args.row_length);
  }
  if (!all_rows(shard, args).empty()) return;
  throw_error(
      "{}: {} has no held-out text in rows of {} tokens ({} tokens in all); give more text or "
      "shorter rows",
      key, shard.path().string(), args.row_length, shard.header().num_tokens);
}

HeldOutText held_out_text(const TokenShard& shard, const HeldOutArgs& args) {
  check_held_out_text("held-out text", shard, args);
  HeldOutText text;
  for (const Row& row : thinned(all_rows(shard, args), args.max_tokens)) {
    text.rows.emplace_back(row.end - row.begin);
    shard.copy_tokens(row.begin, row.end, text.rows.back().data());
    text.clusters.push_back(row.cluster);
  }
  return text;
}

int64_t predicted_bytes(const HeldOutText& text, const Tokenizer& tokenizer) {
  std::unordered_map<int64_t, int64_t> bytes_of;
  int64_t bytes = 0;
  for (const std::vector<int64_t>& row : text.rows) {
    for (size_t i = 1; i < row.size(); ++i) {
      const auto [it, is_new] = bytes_of.try_emplace(row[i], 0);
      if (is_new && !tokenizer.decode({&row[i], 1}, /*skip_special=*/true).empty()) {
        it->second = static_cast<int64_t>(tokenizer.token_bytes(row[i]).size());
      }
      bytes += it->second;
    }
  }
  return bytes;
}

TextBatches::TextBatches(HeldOutText text, int64_t training_length, at::Device device,
                         Kernels kernels, int64_t max_batch_tokens)
    : text_(std::move(text)) {
  HALO_CHECK(training_length > 0 && text_.rows.size() == text_.clusters.size(),
             "held-out text: training length {}, {} rows, {} clusters", training_length,
             text_.rows.size(), text_.clusters.size());
  int64_t longest = 0;
  for (const auto& row : text_.rows) longest = std::max<int64_t>(longest, row.size());
  edges_ = position_edges(training_length, longest);
  for (size_t first = 0, last = 0; first < text_.rows.size(); first = last) {
    std::vector<int64_t> tokens, targets, offsets = {0};
    for (; last < text_.rows.size(); ++last) {
      const std::vector<int64_t>& row = text_.rows[last];
      if (last > first && static_cast<int64_t>(tokens.size() + row.size()) > max_batch_tokens) {
        break;
      }
      tokens.insert(tokens.end(), row.begin(), row.end());
      targets.insert(targets.end(), row.begin() + 1, row.end());
      targets.push_back(kIgnoreTarget);
      offsets.push_back(static_cast<int64_t>(tokens.size()));
    }
    Batch batch = make_batch(at::tensor(tokens, at::kLong), std::move(offsets), device);
    batch.kernels = kernels;
    items_.push_back({std::move(batch), at::tensor(targets, at::kLong).to(device), first});
  }
}

}  // namespace halo
