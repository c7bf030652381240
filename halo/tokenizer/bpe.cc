// The pair of lowest rank is merged first, the leftmost of equals; symbols form a linked list. A
// candidate whose symbols have changed since is recognised when it comes up: its left symbol and
// that one's neighbour are no longer the pair of its rank.
#include "halo/tokenizer/bpe.h"

#include <functional>
#include <map>
#include <optional>
#include <queue>
#include <utility>

namespace halo {
namespace {

constexpr size_t kLongestCached = 64;    // bytes
constexpr size_t kShardEntries = 2'048;  // times 64 shards: some 15 MB when full

struct Symbol {
  int32_t id;              // -1: merged into its left neighbour
  int32_t previous, next;  // -1: none
};

uint64_t pair_key(int32_t left, int32_t right) {
  return static_cast<uint64_t>(left) << 32 | static_cast<uint32_t>(right);
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

Bpe::Bpe(const std::array<int32_t, 256>& byte_ids, std::vector<Merge> merges,
         StringMap<int32_t> whole)
    : byte_ids_(byte_ids), merges_(std::move(merges)), whole_(std::move(whole)) {
  pair_ranks_.reserve(merges_.size());
  for (size_t rank = 0; rank < merges_.size(); ++rank)
    pair_ranks_[pair_key(merges_[rank].left, merges_[rank].right)] = static_cast<int32_t>(rank);
}

std::vector<int32_t> Bpe::merge(std::string_view piece) const {
  std::vector<Symbol> symbols;
  symbols.reserve(piece.size());
  for (const char byte : piece) {
    const int32_t id = byte_ids_[static_cast<uint8_t>(byte)];
    const auto index = static_cast<int32_t>(symbols.size());
    if (id >= 0) symbols.push_back({id, index - 1, index + 1});
  }
  if (symbols.empty()) return {};
  symbols.back().next = -1;

  CandidateQueue queue;
  const auto add_candidate = [&](int32_t left) {
    if (left < 0 || symbols[left].next < 0) return;
    const auto found = pair_ranks_.find(pair_key(symbols[left].id, symbols[symbols[left].next].id));
    if (found != pair_ranks_.end()) queue.push(found->second, left);
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

  std::vector<int32_t> ids;
  for (int32_t i = 0; i >= 0; i = symbols[i].next) ids.push_back(symbols[i].id);
  return ids;
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
  CacheShard& shard = cache_[StringHash()(piece) / 128 % kShards];
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
