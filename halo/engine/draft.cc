#include "halo/engine/draft.h"

#include <algorithm>

namespace halo {
namespace {

uint64_t hash_of(std::span<const int64_t> gram) {
  uint64_t hash = 0;
  for (const int64_t token : gram) {
    hash = (hash ^ static_cast<uint64_t>(token)) * 0x9e3779b97f4a7c15;
    hash ^= hash >> 32;
  }
  return hash;
}

}  // namespace

std::vector<int64_t> DraftSource::propose(std::span<const int64_t> tokens, int64_t most) {
  const int64_t size = std::ssize(tokens);
  if (size < kGram || most < 1) return {};
  const auto gram_before = [&](int64_t end) { return tokens.subspan(end - kGram, kGram); };
  // All but the last, whose own end is no place where it stood before.
  indexed_ = std::max({indexed_, kGram - 1, size - 1 - kMemory});
  while (indexed_ < size - 1) {
    ++indexed_;
    ends_[hash_of(gram_before(indexed_))] = indexed_;
  }
  if (pause_ > 0) {
    --pause_;
    return {};
  }
  const auto found = ends_.find(hash_of(gram_before(size)));
  if (found == ends_.end()) return {};
  const int64_t begin = found->second;
  if (!std::ranges::equal(gram_before(begin), gram_before(size))) return {};
  // What followed may end where the tokens do; it then goes on as a repetition would.
  std::vector<int64_t> draft;
  for (int64_t i = 0; i < most; ++i) {
    draft.push_back(begin + i < size ? tokens[begin + i] : draft[begin + i - size]);
  }
  return draft;
}

void DraftSource::settle(int64_t right) {
  if (right >= kPays) {
    next_pause_ = 4;
    return;
  }
  pause_ = next_pause_;
  next_pause_ = std::min(2 * next_pause_, kLongestPause);
}

}  // namespace halo
