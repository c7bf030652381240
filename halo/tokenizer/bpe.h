// Merging one piece of text, byte-level, in O(n log n) of its bytes.
#pragma once

#include <array>
#include <boost/unordered/unordered_flat_map.hpp>
#include <cstdint>
#include <functional>
#include <mutex>
#include <string>
#include <string_view>
#include <vector>

namespace halo {

// Lets maps keyed by std::string be asked with a std::string_view.
struct StringHash {
  using is_transparent = void;
  size_t operator()(std::string_view text) const { return std::hash<std::string_view>()(text); }
};
template <class T>
using StringMap = boost::unordered_flat_map<std::string, T, StringHash, std::equal_to<>>;

struct Merge {
  int32_t left, right, result;  // ids
};

class Bpe {
 public:
  // byte_ids[b] is the id of byte b, or -1: such bytes are dropped, as the reference drops what it
  // has no token for. Merges in order of rank; of equal pairs the last counts. A piece that is a
  // key of `whole` becomes that id without merging.
  Bpe(const std::array<int32_t, 256>& byte_ids, std::vector<Merge> merges,
      StringMap<int32_t> whole);

  // Appends the ids of a piece, which is shorter than 2^31 bytes. Safe from many threads at once.
  void encode(std::string_view piece, std::vector<int64_t>& out) const;

 private:
  std::vector<int32_t> merge(std::string_view piece) const;

  // Ids of short pieces seen before; a shard that is full stays as it is.
  struct CacheShard {
    std::mutex mutex;
    StringMap<std::vector<int32_t>> ids;
  };
  static constexpr size_t kShards = 64;

  std::array<int32_t, 256> byte_ids_;
  std::vector<Merge> merges_;                                // by rank
  boost::unordered_flat_map<uint64_t, int32_t> pair_ranks_;  // left << 32 | right -> rank
  StringMap<int32_t> whole_;
  mutable std::array<CacheShard, kShards> cache_;
};

}  // namespace halo
