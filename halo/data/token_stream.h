// The documents of some token shards as one endless shuffled stream of tokens: epoch after epoch,
// each in an order of its own, any position reachable at once.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "halo/formats/token_shard.h"

namespace halo {

// The first tokens of a document and their marks, 0 where the shard has none.
struct DocumentBeginning {
  std::vector<int64_t> tokens;
  std::vector<uint8_t> marks;  // as many
  int64_t length = 0;          // of the whole document
};
// Of document `index` of the shard, `most` tokens at most.
DocumentBeginning document_beginning(const TokenShard& shard, int64_t index, int64_t most);

class TokenStream {
 public:
  // The order of epoch e is Random(seed, purpose, e).permutation. A shard made with another
  // tokenizer than `tokenizer_hash`, or no tokens at all, is an Error.
  TokenStream(const std::vector<std::filesystem::path>& shards, const std::string& tokenizer_hash,
              uint64_t seed, std::string purpose);

  // Tokens begin .. begin + count - 1 of the stream and their marks (token_shard.h).
  void copy(int64_t begin, int64_t count, int64_t* tokens, uint8_t* marks) const;
  // Where documents end in it: positions 1 .. count relative to begin, ascending.
  std::vector<int64_t> document_ends(int64_t begin, int64_t count) const;
  // A document of it, counted from 0 over all epochs.
  DocumentBeginning beginning(int64_t document, int64_t most) const;

  int64_t num_tokens() const { return num_tokens_; }  // of an epoch
  int64_t num_documents() const { return static_cast<int64_t>(documents_.size()); }

 private:
  struct Document {
    int64_t shard, index;
  };
  struct Epoch {
    std::vector<int64_t> order;  // documents
    std::vector<int64_t> ends;   // tokens of the epoch up to the end of each
  };
  // A stretch of one document: tokens first .. last - 1 of a shard.
  struct Run {
    int64_t shard, first, last;
    bool ends_document;
  };
  std::shared_ptr<const Epoch> epoch(int64_t number) const;
  void for_each_run(int64_t begin, int64_t count, const std::function<void(const Run&)>& use) const;

  std::vector<TokenShard> shards_;
  std::vector<Document> documents_;  // those that are not empty
  int64_t num_tokens_ = 0;
  uint64_t seed_;
  std::string purpose_;

  mutable std::mutex mutex_;
  mutable std::map<int64_t, std::shared_ptr<const Epoch>> epochs_;  // the last few that were used
};

}  // namespace halo
