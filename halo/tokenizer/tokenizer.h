// BPE from a Hugging Face tokenizer.json, byte-level or with byte fallback: the same ids and the
// same text as the reference's. A component we do not know is refused by name.
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "halo/tokenizer/decode.h"

namespace halo {

class Tokenizer {
 public:
  explicit Tokenizer(const std::filesystem::path& tokenizer_json);
  // From the file's text; `file` is used in messages.
  Tokenizer(std::string_view json_text, const std::string& file);
  ~Tokenizer();
  Tokenizer(Tokenizer&&) noexcept;
  Tokenizer& operator=(Tokenizer&&) noexcept;

  // Text of special tokens inside `text` is recognised. `add_special` puts those around it that the
  // file's post-processor asks for, <s> for example. Safe from many threads at once.
  std::vector<int64_t> encode(std::string_view text, bool add_special = false) const;
  // Bytes that are no UTF-8 become U+FFFD, as the reference does.
  std::string decode(std::span<const int64_t> ids, bool skip_special = false) const;

  int64_t vocab_size() const;  // largest id + 1
  // A token as tokenizer.json writes it ("<|endoftext|>", "\u0120the").
  std::optional<int64_t> token_id(std::string_view token) const;
  // The bytes one id stands for (a prefix of a character is possible); none if no token has the id,
  // which decode() drops, as the reference does.
  std::string token_bytes(int64_t id) const;
  bool is_special(int64_t id) const;
  // The token that encode(text, true) puts first, if it puts one.
  std::optional<int64_t> document_begin() const;
  // The token that ends a document: `name` if not empty (an Error if unknown), else the first of
  // <|endoftext|>, <|end_of_text|>, </s> that the vocabulary has.
  int64_t document_end(const std::string& name = "") const;

 private:
  friend class StreamDecoder;
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

// Decodes a stream of ids without ever splitting a UTF-8 character. All that it gives, together, is
// what Tokenizer::decode gives for all ids at once.
class StreamDecoder {
 public:
  explicit StreamDecoder(const Tokenizer& tokenizer, bool skip_special = true);
  std::string push(int64_t id);  // the text that became complete, perhaps empty
  std::string finish();          // what was held back, replaced where incomplete; once, last
  // The same, appended to `out`.
  void push(int64_t id, std::string& out);
  void finish(std::string& out);

 private:
  const Tokenizer& tokenizer_;
  bool skip_special_;
  DecodeStream stream_;
};

// Trains byte-level BPE on texts (Qwen2 pattern, NFC) and returns the text of a tokenizer.json:
// 256 bytes, then merges by falling count (ties: the pair that is smaller as a pair of byte
// strings), then `special_tokens`, vocab_size ids in all.
std::string train_bpe(const std::vector<std::string>& texts, int64_t vocab_size,
                      const std::vector<std::string>& special_tokens);

}  // namespace halo
