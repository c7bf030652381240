// Token shards: what training reads (docs/formats/token-shard.md). One file:
//   magic "HALOTOK1", u32 header length, JSON header, padding to 64 bytes, then the tokens (u16 or
//   u32, whichever the vocabulary needs), then u64 document ends, then a byte of marks a token.
#pragma once

#include <filesystem>
#include <span>
#include <string>
#include <vector>

#include "halo/base/files.h"

namespace halo {

struct TokenShardHeader {
  std::string tokenizer_hash;  // hash_file(tokenizer.json): training refuses another tokenizer
  int64_t vocab_size = 0;
  int64_t num_tokens = 0, num_documents = 0;
  std::string provenance;  // JSON text: the command, sources and hashes it was made from
};

class TokenShard {
 public:
  // ParseError: truncated, wrong counts, damaged, ...
  explicit TokenShard(const std::filesystem::path& path);
  const TokenShardHeader& header() const { return header_; }
  int64_t num_documents() const { return header_.num_documents; }
  int64_t document_begin(int64_t d) const;
  int64_t document_end(int64_t d) const;
  int64_t token(int64_t index) const;
  void copy_tokens(int64_t begin, int64_t end, int64_t* out) const;
  // For every token of a needle document's answer 1, of its needle's digits 2, else 0; empty where
  // the shard holds none (training masks 2 and may weight 1).
  void copy_marks(int64_t begin, int64_t end, uint8_t* out) const;
  bool has_marks() const;
  const std::filesystem::path& path() const { return file_.path(); }

 private:
  MappedFile file_;
  TokenShardHeader header_;
  bool wide_ = false;
  const std::byte* tokens_ = nullptr;
  const std::byte* document_ends_ = nullptr;
  const std::byte* marks_ = nullptr;
};

class TokenShardWriter {
 public:
  TokenShardWriter(const std::filesystem::path& path, std::string tokenizer_hash,
                   int64_t vocab_size, std::string provenance);
  // `marks` empty or of the tokens' length.
  void add_document(std::span<const int64_t> tokens, std::span<const uint8_t> marks = {});
  void finish();  // atomic; nothing is left behind if it is never called

 private:
  std::filesystem::path path_;
  TokenShardHeader header_;
  std::vector<uint32_t> tokens_;
  std::vector<uint64_t> document_ends_;
  std::vector<uint8_t> marks_;
};

}  // namespace halo
