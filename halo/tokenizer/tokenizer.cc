#include "halo/tokenizer/tokenizer.h"

#include <algorithm>
#include <array>
#include <utility>

#include "halo/base/check.h"
#include "halo/base/files.h"
#include "halo/tokenizer/added_tokens.h"
#include "halo/tokenizer/byte_alphabet.h"
#include "halo/tokenizer/normalize.h"
#include "halo/tokenizer/pieces.h"
#include "halo/tokenizer/tokenizer_json.h"
#include "halo/tokenizer/utf8.h"

namespace halo {
namespace {

constexpr size_t kMaxTextBytes = (size_t{1} << 31) / 3 - 1;  // NFC makes it 3 times longer at most

// Reference: characters outside the byte alphabet anywhere in a token make it stand for its text.
std::string token_to_bytes(const std::string& token) {
  return alphabet_to_bytes(token).value_or(token);
}

Bpe make_bpe(TokenizerFile& file) {
  std::array<int32_t, 256> byte_ids;
  for (int byte = 0; byte < 256; ++byte) {
    const auto found = file.vocab.find(bytes_to_alphabet(std::string(1, static_cast<char>(byte))));
    byte_ids[byte] = found == file.vocab.end() ? -1 : found->second;
  }
  StringMap<int32_t> whole;
  if (file.ignore_merges) {
    for (const auto& [token, id] : file.vocab) {
      if (auto bytes = alphabet_to_bytes(token)) whole.emplace(std::move(*bytes), id);
    }
  }
  return {byte_ids, std::move(file.merges), std::move(whole)};
}

AddedTokenMatcher make_matcher(const TokenizerFile& file, bool normalized) {
  std::vector<std::pair<std::string, int32_t>> tokens;
  for (const AddedToken& token : file.added_tokens) {
    if (token.normalized != normalized) continue;
    tokens.emplace_back(normalized && file.nfc ? normalize_nfc(token.text) : token.text, token.id);
  }
  return AddedTokenMatcher(std::move(tokens));
}

// Calls on_text(stretch) for the text between added tokens and appends the ids of these.
template <class OnText>
void split_added(const AddedTokenMatcher& matcher, std::string_view text, std::vector<int64_t>& out,
                 const OnText& on_text) {
  size_t from = 0;
  while (const auto match = matcher.find(text, from)) {
    on_text(text.substr(from, match->begin - from));
    out.push_back(match->id);
    from = match->end;
  }
  on_text(text.substr(from));
}

}  // namespace

struct Tokenizer::Impl {
  struct Token {
    std::string bytes;
    bool special = false;
  };

  explicit Impl(TokenizerFile file)
      : nfc(file.nfc),
        raw_added(make_matcher(file, false)),
        normalized_added(make_matcher(file, true)),
        bpe(make_bpe(file)),
        ids(std::move(file.vocab)) {
    for (const AddedToken& token : file.added_tokens) ids.emplace(token.text, token.id);
    int32_t largest = -1;
    for (const auto& [token, id] : ids) largest = std::max(largest, id);
    tokens.resize(largest + 1);
    for (const auto& [token, id] : ids) tokens[id].bytes = token_to_bytes(token);
    for (const AddedToken& token : file.added_tokens) tokens[token.id].special = token.special;
  }

  // Nothing for an id that no token has.
  const Token* find(int64_t id) const {
    return id >= 0 && id < static_cast<int64_t>(tokens.size()) ? &tokens[id] : nullptr;
  }

  bool nfc;
  AddedTokenMatcher raw_added, normalized_added;
  Bpe bpe;
  StringMap<int32_t> ids;
  std::vector<Token> tokens;  // by id; ids without a token are empty
};

Tokenizer::Tokenizer(const std::filesystem::path& tokenizer_json)
    : Tokenizer(read_file(tokenizer_json), tokenizer_json.string()) {}

Tokenizer::Tokenizer(std::string_view json_text, const std::string& file)
    : impl_(std::make_unique<Impl>(parse_tokenizer_json(json_text, file))) {}

Tokenizer::~Tokenizer() = default;
Tokenizer::Tokenizer(Tokenizer&&) noexcept = default;
Tokenizer& Tokenizer::operator=(Tokenizer&&) noexcept = default;

std::vector<int64_t> Tokenizer::encode(std::string_view text) const {
  if (text.size() > kMaxTextBytes) {
    throw_error("encode: the text has {} bytes; at most {} at once, so cut it", text.size(),
                kMaxTextBytes);
  }
  std::vector<int64_t> out;
  const auto encode_pieces = [&](std::string_view stretch) {
    for (size_t begin = 0; begin < stretch.size();) {
      const size_t end = piece_end(stretch, begin);
      impl_->bpe.encode(stretch.substr(begin, end - begin), out);
      begin = end;
    }
  };
  split_added(impl_->raw_added, replace_invalid_utf8(text), out, [&](std::string_view stretch) {
    const std::string normalized = impl_->nfc ? normalize_nfc(stretch) : std::string(stretch);
    split_added(impl_->normalized_added, normalized, out, encode_pieces);
  });
  return out;
}

std::string Tokenizer::decode(std::span<const int64_t> ids, bool skip_special) const {
  std::string bytes;
  for (const int64_t id : ids) {
    const Impl::Token* token = impl_->find(id);
    if (token && !(skip_special && token->special)) bytes += token->bytes;
  }
  return replace_invalid_utf8(bytes);
}

int64_t Tokenizer::vocab_size() const {
  return static_cast<int64_t>(impl_->tokens.size());
}

std::optional<int64_t> Tokenizer::token_id(std::string_view token) const {
  const auto found = impl_->ids.find(token);
  return found == impl_->ids.end() ? std::nullopt : std::optional<int64_t>(found->second);
}

std::string Tokenizer::token_bytes(int64_t id) const {
  const Impl::Token* token = impl_->find(id);
  return token ? token->bytes : "";
}

bool Tokenizer::is_special(int64_t id) const {
  const Impl::Token* token = impl_->find(id);
  return token && token->special;
}

int64_t Tokenizer::document_end(const std::string& name) const {
  if (!name.empty()) {
    if (const auto id = token_id(name)) return *id;
    throw_error("the vocabulary has no token '{}' to end a document; name one that it has", name);
  }
  for (const char* usual : {"<|endoftext|>", "<|end_of_text|>", "</s>"}) {
    if (const auto id = token_id(usual)) return *id;
  }
  throw_error(
      "the vocabulary has none of <|endoftext|>, <|end_of_text|>, </s>; name the token that ends a "
      "document");
}

StreamDecoder::StreamDecoder(const Tokenizer& tokenizer, bool skip_special)
    : tokenizer_(tokenizer), skip_special_(skip_special) {}

std::string StreamDecoder::push(int64_t id) {
  if (skip_special_ && tokenizer_.is_special(id)) return "";
  pending_ += tokenizer_.token_bytes(id);
  const size_t complete = pending_.size() - incomplete_utf8_tail(pending_);
  std::string text = replace_invalid_utf8(std::string_view(pending_).substr(0, complete));
  pending_.erase(0, complete);
  return text;
}

std::string StreamDecoder::finish() {
  return replace_invalid_utf8(std::exchange(pending_, {}));
}

}  // namespace halo
