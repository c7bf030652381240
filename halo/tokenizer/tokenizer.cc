#include "halo/tokenizer/tokenizer.h"

#include <algorithm>
#include <utility>

#include "halo/base/check.h"
#include "halo/base/text.h"
#include "halo/base/utf8.h"
#include "halo/tokenizer/added_tokens.h"
#include "halo/tokenizer/byte_alphabet.h"
#include "halo/tokenizer/normalize.h"
#include "halo/tokenizer/pieces.h"
#include "halo/tokenizer/tokenizer_json.h"

namespace halo {
namespace {

// Bpe counts the symbols of a piece in 31 bits; a space becomes three bytes at Metaspace, a byte
// two ids at the most.
constexpr size_t kMaxTextBytes = (size_t{1} << 31) / 3 - 1;
// How much longer normalised text may be, so that Replace steps in a row cannot fill the memory:
// U+FDFA becomes eleven times its three bytes in form KC.
constexpr size_t kMaxGrowth = 24;
constexpr size_t kMaxExtraBytes = size_t{1} << 16;

AddedTokenMatcher make_matcher(const TokenizerFile& file, bool normalized) {
  std::vector<AddedTokenMatcher::Token> tokens;
  std::string buffer;
  for (const AddedToken& token : file.added_tokens) {
    if (token.normalized != normalized) continue;
    const std::string_view text =
        normalized ? file.normalizer.apply(token.text, buffer, kMaxExtraBytes) : token.text;
    if (text.empty()) continue;
    tokens.push_back({std::string(text), token.id, token.single_word, token.lstrip, token.rstrip});
  }
  return AddedTokenMatcher(std::move(tokens));
}

// What a decoder's first step takes. Reference: characters outside the byte alphabet anywhere in a
// token make it stand for its text.
std::string decoder_input(const DecoderSteps& decoder, const std::string& token) {
  return decoder.byte_level ? alphabet_to_bytes(token).value_or(token) : token;
}

}  // namespace

struct Tokenizer::Impl {
  struct Token {
    std::string text;  // as decoder_input gives it
    bool known = false;
    bool special = false;
  };

  explicit Impl(TokenizerFile file)
      : raw_added(make_matcher(file, false)),
        normalized_added(make_matcher(file, true)),
        bpe(file.model),
        normalizer(std::move(file.normalizer)),
        pre_tokenizer(std::move(file.pre_tokenizer)),
        prefix(std::move(file.prefix)),
        suffix(std::move(file.suffix)),
        decoder(std::move(file.decoder)),
        ids(std::move(file.model.vocab)) {
    for (const AddedToken& token : file.added_tokens) ids.emplace(token.text, token.id);
    int32_t largest = -1;
    for (const auto& [token, id] : ids) largest = std::max(largest, id);
    tokens.resize(largest + 1);
    for (const auto& [token, id] : ids) tokens[id] = {decoder_input(decoder, token), true};
    for (const AddedToken& token : file.added_tokens) tokens[token.id].special = token.special;
  }

  // Nothing for an id that no token has.
  const Token* find(int64_t id) const {
    const bool in_range = id >= 0 && id < static_cast<int64_t>(tokens.size());
    return in_range && tokens[id].known ? &tokens[id] : nullptr;
  }

  // `begins_text`: nothing of the whole text is before `text`.
  void encode_between_tokens(std::string_view text, bool begins_text,
                             std::vector<int64_t>& out) const {
    std::string buffer;
    const size_t max_bytes = std::min(kMaxGrowth * text.size() + kMaxExtraBytes, kMaxTextBytes);
    const std::string_view normalized = normalizer.apply(text, buffer, max_bytes);
    const auto on_piece = [&](std::string_view piece) { bpe.encode(piece, out); };
    normalized_added.split(
        normalized,
        [&](size_t begin, std::string_view stretch) {
          pre_tokenizer.run(stretch, begins_text && begin == 0, on_piece);
        },
        [&](int32_t id) { out.push_back(id); });
  }

  AddedTokenMatcher raw_added, normalized_added;
  Bpe bpe;
  Normalizer normalizer;
  PreTokenizer pre_tokenizer;
  std::vector<int32_t> prefix, suffix;
  DecoderSteps decoder;
  StringMap<int32_t> ids;
  std::vector<Token> tokens;  // by id
};

Tokenizer::Tokenizer(const std::filesystem::path& tokenizer_json)
    : Tokenizer(read_text_file(tokenizer_json), tokenizer_json.string()) {}

Tokenizer::Tokenizer(std::string_view json_text, const std::string& file)
    : impl_(std::make_unique<Impl>(parse_tokenizer_json(json_text, file))) {}

Tokenizer::~Tokenizer() = default;
Tokenizer::Tokenizer(Tokenizer&&) noexcept = default;
Tokenizer& Tokenizer::operator=(Tokenizer&&) noexcept = default;

std::vector<int64_t> Tokenizer::encode(std::string_view text, bool add_special) const {
  if (text.size() > kMaxTextBytes) {
    throw_error("encode: the text has {} bytes; at most {} at once, so cut it", text.size(),
                kMaxTextBytes);
  }
  std::vector<int64_t> out;
  out.reserve(text.size() / 4);
  if (add_special) out.assign(impl_->prefix.begin(), impl_->prefix.end());
  std::string buffer;
  impl_->raw_added.split(
      replace_invalid_utf8(text, buffer),
      [&](size_t begin, std::string_view stretch) {
        impl_->encode_between_tokens(stretch, begin == 0, out);
      },
      [&](int32_t id) { out.push_back(id); });
  if (add_special) out.insert(out.end(), impl_->suffix.begin(), impl_->suffix.end());
  return out;
}

std::string Tokenizer::decode(std::span<const int64_t> ids, bool skip_special) const {
  StreamDecoder stream(*this, skip_special);
  std::string out;
  for (const int64_t id : ids) stream.push(id, out);
  stream.finish(out);
  return out;
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
  if (!token) return "";
  return impl_->decoder.byte_level ? token->text : text_within(impl_->decoder, token->text);
}

bool Tokenizer::is_special(int64_t id) const {
  const Impl::Token* token = impl_->find(id);
  return token && token->special;
}

std::optional<int64_t> Tokenizer::document_begin() const {
  if (impl_->prefix.empty()) return std::nullopt;
  return impl_->prefix.front();
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
    : tokenizer_(tokenizer), skip_special_(skip_special), stream_(tokenizer.impl_->decoder) {}

void StreamDecoder::push(int64_t id, std::string& out) {
  const Tokenizer::Impl::Token* token = tokenizer_.impl_->find(id);
  if (token && !(skip_special_ && token->special)) stream_.push(token->text, out);
}

void StreamDecoder::finish(std::string& out) {
  stream_.finish(out);
}

std::string StreamDecoder::push(int64_t id) {
  std::string out;
  push(id, out);
  return out;
}

std::string StreamDecoder::finish() {
  std::string out;
  finish(out);
  return out;
}

}  // namespace halo
