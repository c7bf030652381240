#include "halo/data/token_stream.h"

#include <algorithm>
#include <utility>

#include "halo/base/check.h"
#include "halo/base/random.h"

namespace halo {

namespace {

// A batch touches two epochs at most where rows straddle their border.
constexpr size_t kKeptEpochs = 2;

// Tokens first .. last - 1 of the shard and their marks.
void copy_run(const TokenShard& shard, int64_t first, int64_t last, int64_t* tokens,
              uint8_t* marks) {
  shard.copy_tokens(first, last, tokens);
  if (shard.has_marks()) {
    shard.copy_marks(first, last, marks);
  } else {
    std::fill_n(marks, last - first, uint8_t{0});
  }
}

}  // namespace

DocumentBeginning document_beginning(const TokenShard& shard, int64_t index, int64_t most) {
  const int64_t begin = shard.document_begin(index);
  DocumentBeginning out;
  out.length = shard.document_end(index) - begin;
  const int64_t taken = std::min(out.length, most);
  out.tokens.resize(static_cast<size_t>(taken));
  out.marks.resize(static_cast<size_t>(taken));
  copy_run(shard, begin, begin + taken, out.tokens.data(), out.marks.data());
  return out;
}

TokenStream::TokenStream(const std::vector<std::filesystem::path>& shards,
                         const std::string& tokenizer_hash, uint64_t seed, std::string purpose)
    : seed_(seed), purpose_(std::move(purpose)) {
  for (const auto& path : shards) {
    const TokenShard& shard = shards_.emplace_back(path);
    if (shard.header().tokenizer_hash != tokenizer_hash) {
      throw_error(
          "{}: made with tokenizer {}, but the model's tokenizer is {}; pack the text again with "
          "the "
          "model's own",
          path.string(), shard.header().tokenizer_hash, tokenizer_hash);
    }
    for (int64_t d = 0; d < shard.num_documents(); ++d) {
      const int64_t length = shard.document_end(d) - shard.document_begin(d);
      if (length == 0) continue;
      documents_.push_back({static_cast<int64_t>(shards_.size()) - 1, d});
      num_tokens_ += length;
    }
  }
  if (num_tokens_ == 0) {
    throw_error("{}: no tokens to train on", shards.empty() ? "data" : shards.front().string());
  }
}

std::shared_ptr<const TokenStream::Epoch> TokenStream::epoch(int64_t number) const {
  const std::lock_guard lock(mutex_);
  if (const auto found = epochs_.find(number); found != epochs_.end()) return found->second;
  auto epoch = std::make_shared<Epoch>();
  epoch->order = Random(seed_, purpose_, number).permutation(num_documents());
  epoch->ends.reserve(epoch->order.size());
  int64_t end = 0;
  for (const int64_t d : epoch->order) {
    const TokenShard& shard = shards_[documents_[d].shard];
    end += shard.document_end(documents_[d].index) - shard.document_begin(documents_[d].index);
    epoch->ends.push_back(end);
  }
  if (epochs_.size() >= kKeptEpochs) {
    // Training moves forward, so the oldest goes; a step back makes the newest go instead.
    epochs_.erase(number > epochs_.begin()->first ? epochs_.begin() : std::prev(epochs_.end()));
  }
  epochs_.emplace(number, epoch);
  return epoch;
}

void TokenStream::for_each_run(int64_t begin, int64_t count,
                               const std::function<void(const Run&)>& use) const {
  HALO_CHECK(begin >= 0, "token stream: position {} is negative", begin);
  const int64_t end = begin + count;
  while (begin < end) {
    const int64_t number = begin / num_tokens_;
    const int64_t epoch_begin = number * num_tokens_;
    const auto order = epoch(number);
    const auto& ends = order->ends;
    size_t i = std::upper_bound(ends.begin(), ends.end(), begin - epoch_begin) - ends.begin();
    for (; i < ends.size() && begin < end; ++i) {
      const Document& document = documents_[order->order[i]];
      const int64_t document_end = shards_[document.shard].document_end(document.index);
      const int64_t left = epoch_begin + ends[i] - begin;  // tokens of the document from here
      const int64_t taken = std::min(left, end - begin);
      const int64_t first = document_end - left;
      use({document.shard, first, first + taken, taken == left});
      begin += taken;
    }
  }
}

void TokenStream::copy(int64_t begin, int64_t count, int64_t* tokens, uint8_t* marks) const {
  for_each_run(begin, count, [&](const Run& run) {
    const int64_t length = run.last - run.first;
    copy_run(shards_[run.shard], run.first, run.last, tokens, marks);
    tokens += length;
    marks += length;
  });
}

std::vector<int64_t> TokenStream::document_ends(int64_t begin, int64_t count) const {
  std::vector<int64_t> ends;
  int64_t position = 0;
  for_each_run(begin, count, [&](const Run& run) {
    position += run.last - run.first;
    if (run.ends_document) ends.push_back(position);
  });
  return ends;
}

DocumentBeginning TokenStream::beginning(int64_t document, int64_t most) const {
  const auto order = epoch(document / num_documents());
  const Document& found = documents_[order->order[document % num_documents()]];
  return document_beginning(shards_[found.shard], found.index, most);
}

}  // namespace halo
