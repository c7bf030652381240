// The pair of lowest rank is merged first, the leftmost of equals; symbols form a linked list. A
// candidate whose symbols have changed since is recognised when it comes up: its left symbol and
// that one's neighbour are no longer the pair of its rank.
#include "halo/tokenizer/bpe.h"

#define XXH_INLINE_ALL
#include <xxhash.h>

#include <algorithm>
#include <limits>
#include <map>
#include <queue>
#include <utility>

#include "halo/base/check.h"
#include "halo/base/utf8.h"
#include "halo/tokenizer/byte_alphabet.h"

namespace halo {
namespace {

constexpr size_t kLongestCached = 64;    // bytes
constexpr size_t kShardEntries = 2'048;  // times 64 shards: some 15 MB when full
constexpr size_t kLongestShort = 96;     // symbols; merge_short is quadratic
constexpr int32_t kNoRank = std::numeric_limits<int32_t>::max();

struct Symbol {
  int32_t id;              // -1: merged into its left neighbour
  int32_t previous, next;  // -1: none
};

uint64_t pair_key(int32_t left, int32_t right) {
  return static_cast<uint64_t>(left) << 32 | static_cast<uint32_t>(right);
}

int32_t id_of(const StringMap<int32_t>& vocab, std::string_view token) {
  const auto found = vocab.find(token);
  return found == vocab.end() ? -1 : found->second;
}

// The bytes a token stands for as a piece; nothing if no piece can be it.
std::optional<std::string> piece_of(const BpeModel& model, const std::string& token) {
  return model.byte_level ? alphabet_to_bytes(token) : token;
}

// Candidates (rank, position of the left symbol), smallest first. Long pieces have few ranks and
// meet most positions of a rank in rising order, so a rank keeps those in a plain list, which is
// read from its front, and only the rest in a heap.
class CandidateQueue {
 public:
  void push(int32_t rank, int32_t position) {
    Bucket& bucket = buckets_[rank];
    if (bucket.rising.empty() || position > bucket.rising.back()) {
      bucket.rising.push_back(position);
    } else {
      bucket.rest.push(position);
    }
  }

  struct Candidate {
    int32_t rank, position;
  };
  std::optional<Candidate> pop() {
    if (buckets_.empty()) return std::nullopt;
    const auto lowest = buckets_.begin();
    auto& [rank, bucket] = *lowest;
    const bool rising_done = bucket.next == bucket.rising.size();
    Candidate out{rank, 0};
    if (bucket.rest.empty() || (!rising_done && bucket.rising[bucket.next] < bucket.rest.top())) {
      out.position = bucket.rising[bucket.next++];
    } else {
      out.position = bucket.rest.top();
      bucket.rest.pop();
    }
    if (bucket.next == bucket.rising.size() && bucket.rest.empty()) buckets_.erase(lowest);
    return out;
  }

 private:
  struct Bucket {
    std::vector<int32_t> rising;
    size_t next = 0;  // first of `rising` not yet taken
    std::priority_queue<int32_t, std::vector<int32_t>, std::greater<>> rest;
  };
  std::map<int32_t, Bucket> buckets_;
};

}  // namespace

size_t StringHash::operator()(std::string_view text) const {
  return XXH3_64bits(text.data(), text.size());
}

Bpe::Bpe(const BpeModel& model)
    : byte_level_(model.byte_level),
      fuse_unknown_(model.fuse_unknown),
      unknown_(model.unknown),
      merges_(model.merges) {
  pair_ranks_.reserve(merges_.size());
  for (size_t rank = 0; rank < merges_.size(); ++rank)
    pair_ranks_[pair_key(merges_[rank].left, merges_[rank].right)] = static_cast<int32_t>(rank);

  fallback_.fill(-1);
  for (int byte = 0; model.byte_fallback && byte < 256; ++byte)
    fallback_[byte] = id_of(model.vocab, fmt::format("<0x{:02X}>", byte));
  for (int byte = 0; byte_level_ && byte < 256; ++byte) {
    const std::string character = bytes_to_alphabet(std::string(1, static_cast<char>(byte)));
    const int32_t id = id_of(model.vocab, character);
    bytes_[byte] = id < 0 ? fall_back(character) : Start{{id}, 1};
  }
  for (const auto& [token, id] : model.vocab) {
    if (token.empty() || byte_level_) continue;
    if (const CodeAt first = code_at(token, 0); first.end == token.size())
      characters_.emplace(first.code, id);
  }

  for (const auto& [token, id] : model.vocab) {
    auto piece = piece_of(model, token);
    if (piece && !piece->empty() && (model.ignore_merges || merge(*piece) == std::vector{id}))
      whole_.emplace(*std::move(piece), id);
  }
}

Bpe::Start Bpe::fall_back(std::string_view character) const {
  Start out{.fallback = true};
  for (const char byte : character) {
    const int32_t id = fallback_[static_cast<uint8_t>(byte)];
    if (id < 0) return {};
    out.ids[out.count++] = id;
  }
  return out;
}

std::vector<int32_t> Bpe::starts_of(std::string_view piece) const {
  std::vector<int32_t> ids;
  ids.reserve(piece.size());
  // An unknown token waits for the next known character, past tokens of bytes, as in the reference.
  bool unknown_waits = false;
  const auto end_unknown = [&] {
    if (std::exchange(unknown_waits, false)) ids.push_back(*unknown_);
  };
  const auto add = [&](const Start& start) {
    if (start.count == 0) {
      if (!unknown_) return;
      if (!fuse_unknown_) end_unknown();
      unknown_waits = true;
      return;
    }
    if (!start.fallback) end_unknown();
    ids.insert(ids.end(), start.ids.begin(), start.ids.begin() + start.count);
  };
  if (byte_level_) {
    for (const char byte : piece) add(bytes_[static_cast<uint8_t>(byte)]);
  } else {
    for (size_t at = 0; at < piece.size();) {
      const CodeAt c = code_at(piece, at);
      const auto found = characters_.find(c.code);
      add(found != characters_.end() ? Start{{found->second}, 1}
                                     : fall_back(piece.substr(at, c.end - at)));
      at = c.end;
    }
  }
  end_unknown();
  return ids;
}

int32_t Bpe::rank_of(int32_t left, int32_t right) const {
  const auto found = pair_ranks_.find(pair_key(left, right));
  return found == pair_ranks_.end() ? kNoRank : found->second;
}

std::vector<int32_t> Bpe::merge(std::string_view piece) const {
  std::vector<int32_t> ids = starts_of(piece);
  if (ids.size() <= kLongestShort) {
    merge_short(ids);
  } else {
    merge_long(ids);
  }
  return ids;
}

void Bpe::merge_short(std::vector<int32_t>& ids) const {
  if (ids.size() < 2) return;
  std::array<int32_t, kLongestShort> ranks;  // of ids[i] with ids[i + 1]
  size_t pairs = ids.size() - 1;
  for (size_t i = 0; i < pairs; ++i) ranks[i] = rank_of(ids[i], ids[i + 1]);
  while (pairs > 0) {
    const size_t at = std::min_element(ranks.begin(), ranks.begin() + pairs) - ranks.begin();
    if (ranks[at] == kNoRank) break;
    ids[at] = merges_[ranks[at]].result;
    std::copy(ids.begin() + at + 2, ids.begin() + pairs + 1, ids.begin() + at + 1);
    std::copy(ranks.begin() + at + 1, ranks.begin() + pairs, ranks.begin() + at);
    --pairs;
    if (at > 0) ranks[at - 1] = rank_of(ids[at - 1], ids[at]);
    if (at < pairs) ranks[at] = rank_of(ids[at], ids[at + 1]);
  }
  ids.resize(pairs + 1);
}

void Bpe::merge_long(std::vector<int32_t>& ids) const {
  std::vector<Symbol> symbols;
  symbols.reserve(ids.size());
  for (const int32_t id : ids) {
    const auto index = static_cast<int32_t>(symbols.size());
    symbols.push_back({id, index - 1, index + 1});
  }
  symbols.back().next = -1;

  CandidateQueue queue;
  const auto add_candidate = [&](int32_t left) {
    if (left < 0 || symbols[left].next < 0) return;
    const int32_t rank = rank_of(symbols[left].id, symbols[symbols[left].next].id);
    if (rank != kNoRank) queue.push(rank, left);
  };
  for (size_t i = 0; i < symbols.size(); ++i) add_candidate(static_cast<int32_t>(i));

  while (const auto candidate = queue.pop()) {
    const Merge& merge = merges_[candidate->rank];
    Symbol& left = symbols[candidate->position];
    if (left.id != merge.left || left.next < 0 || symbols[left.next].id != merge.right) continue;

    Symbol& right = symbols[left.next];
    left.id = merge.result;
    left.next = right.next;
    if (right.next >= 0) symbols[right.next].previous = candidate->position;
    right.id = -1;
    add_candidate(left.previous);
    add_candidate(candidate->position);
  }

  ids.clear();
  for (int32_t i = 0; i >= 0; i = symbols[i].next) ids.push_back(symbols[i].id);
}

void Bpe::encode(std::string_view piece, std::vector<int64_t>& out) const {
  if (const auto found = whole_.find(piece); found != whole_.end()) {
    out.push_back(found->second);
    return;
  }
  if (piece.size() > kLongestCached) {
    const std::vector<int32_t> ids = merge(piece);
    out.insert(out.end(), ids.begin(), ids.end());
    return;
  }
  CacheShard& shard = cache_[(StringHash()(piece) >> 20) % kShards];
  {
    const std::lock_guard lock(shard.mutex);
    if (const auto found = shard.ids.find(piece); found != shard.ids.end()) {
      out.insert(out.end(), found->second.begin(), found->second.end());
      return;
    }
  }
  std::vector<int32_t> ids = merge(piece);
  out.insert(out.end(), ids.begin(), ids.end());
  const std::lock_guard lock(shard.mutex);
  if (shard.ids.size() < kShardEntries) shard.ids.emplace(piece, std::move(ids));
}

}  // namespace halo
