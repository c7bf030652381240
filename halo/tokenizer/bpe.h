// Merging one piece of text into tokens, in O(n log n) of its bytes.
#pragma once

#include <array>
#include <boost/unordered/unordered_flat_map.hpp>
#include <cstdint>
#include <functional>
#include <mutex>
#include <optional>
#include <string>
#include <string_view>
#include <type_traits>
#include <vector>

namespace halo {

// Lets maps keyed by std::string be asked with a std::string_view.
struct StringHash {
  using is_transparent = void;
  using is_avalanching = std::true_type;
  size_t operator()(std::string_view text) const;
};
template <class T>
using StringMap = boost::unordered_flat_map<std::string, T, StringHash, std::equal_to<>>;

struct Merge {
  int32_t left, right, result;  // ids
};

// A BPE model as tokenizer.json describes it.
struct BpeModel {
  StringMap<int32_t> vocab;        // tokens as written there
  std::vector<Merge> merges;       // by rank; of equal pairs the last counts
  bool byte_level = false;         // tokens are written in the byte alphabet (byte_alphabet.h)
  bool ignore_merges = false;      // a piece that is a token becomes it without merging
  bool byte_fallback = false;      // a character without token becomes <0xE2> <0x82> <0xAC>,
  std::optional<int32_t> unknown;  // else this, else it is dropped
  bool fuse_unknown = false;       // several in a row become one
};

class Bpe {
 public:
  explicit Bpe(const BpeModel& model);

  // Appends the ids of a piece, which is shorter than 2^31 bytes. Safe from many threads at once.
  void encode(std::string_view piece, std::vector<int64_t>& out) const;

 private:
  // What a character of the piece (a byte, if byte_level) begins as.
  struct Start {
    std::array<int32_t, 4> ids;
    int8_t count = 0;       // 0: no token has it
    bool fallback = false;  // tokens of its bytes
  };
  Start fall_back(std::string_view character) const;
  std::vector<int32_t> starts_of(std::string_view piece) const;
  // Rank of the merge of a pair, or kNoRank.
  int32_t rank_of(int32_t left, int32_t right) const;
  std::vector<int32_t> merge(std::string_view piece) const;
  void merge_short(std::vector<int32_t>& ids) const;
  void merge_long(std::vector<int32_t>& ids) const;

  // Ids of short pieces seen before; a shard that is full stays as it is.
  struct CacheShard {
    std::mutex mutex;
    StringMap<std::vector<int32_t>> ids;
  };
  static constexpr size_t kShards = 64;

  bool byte_level_, fuse_unknown_;
  std::optional<int32_t> unknown_;
  std::array<int32_t, 256> fallback_;                        // tokens <0x00> .., or -1
  std::array<Start, 256> bytes_{};                           // if byte_level
  boost::unordered_flat_map<char32_t, int32_t> characters_;  // else
  std::vector<Merge> merges_;                                // by rank
  boost::unordered_flat_map<uint64_t, int32_t> pair_ranks_;  // left << 32 | right -> rank
  StringMap<int32_t> whole_;                                 // pieces that become one token
  mutable std::array<CacheShard, kShards> cache_;
};

}  // namespace halo
