// Sizes and counts of the header are checked against the file before they are used.
#include "halo/formats/token_shard.h"

#include <algorithm>
#include <cstring>
#include <limits>

#include "halo/base/check.h"
#include "halo/base/json.h"
#include "halo/base/progress.h"

namespace halo {
namespace {

constexpr std::string_view kMagic = "HALOTOK1";
constexpr uint64_t kPrefixBytes = 12;  // magic and header length
constexpr uint64_t kMaxHeaderBytes = 16'000'000;
constexpr int64_t kMaxVocabSize = int64_t{1} << 32;
constexpr uint8_t kMaxMark = 3;

bool needs_u32(int64_t vocab_size) {
  return vocab_size > 65536;
}

uint64_t round_up(uint64_t size, uint64_t unit) {
  return (size + unit - 1) / unit * unit;
}

// Where the parts of a file lie, from its start.
struct Layout {
  uint64_t tokens, document_ends, marks, end;
};

Layout layout_of(uint64_t header_bytes, const TokenShardHeader& header, bool has_marks) {
  Layout layout;
  layout.tokens = round_up(kPrefixBytes + header_bytes, 64);
  const uint64_t token_bytes = needs_u32(header.vocab_size) ? 4 : 2;
  layout.document_ends = round_up(layout.tokens + header.num_tokens * token_bytes, 8);
  layout.marks = layout.document_ends + header.num_documents * 8;
  layout.end = layout.marks + (has_marks ? header.num_tokens : 0);
  return layout;
}

template <class T>
T load(const std::byte* at) {
  T value;
  std::memcpy(&value, at, sizeof(T));
  return value;
}

template <class T>
std::string_view as_text(const std::vector<T>& values) {
  return {reinterpret_cast<const char*>(values.data()), values.size() * sizeof(T)};
}

// A count from the header. A file of `file_bytes` can hold no more than that of anything, which
// also keeps the layout's arithmetic far from overflow.
int64_t read_count(const json::object& object, const char* key, uint64_t file_bytes,
                   const std::string& file) {
  const int64_t count = json_get<int64_t>(object, key, file);
  if (count < 0 || static_cast<uint64_t>(count) > file_bytes)
    throw ParseError(file, kPrefixBytes,
                     fmt::format("'{}' is {} in a file of {} bytes", key, count, file_bytes));
  return count;
}

json::object header_to_json(const TokenShardHeader& header, bool has_marks,
                            const std::string& payload_hash) {
  return {{"tokenizer_hash", header.tokenizer_hash},
          {"vocab_size", header.vocab_size},
          {"num_tokens", header.num_tokens},
          {"num_documents", header.num_documents},
          {"has_marks", has_marks},
          {"payload_hash", payload_hash},
          {"provenance", header.provenance}};
}

}  // namespace

TokenShard::TokenShard(const std::filesystem::path& path) : file_(path) {
  const std::span<const std::byte> bytes = file_.bytes();
  const std::string file = path.string();
  if (bytes.size() < kPrefixBytes)
    throw ParseError(file, bytes.size(), "too short for a token shard");
  if (std::memcmp(bytes.data(), kMagic.data(), kMagic.size()) != 0)
    throw ParseError(file, 0, fmt::format("not a token shard: it does not start with {}", kMagic));
  const uint64_t header_bytes = load<uint32_t>(bytes.data() + kMagic.size());
  if (header_bytes > kMaxHeaderBytes || header_bytes > bytes.size() - kPrefixBytes)
    throw ParseError(file, kMagic.size(),
                     fmt::format("header of {} bytes reaches beyond the file or is larger than the "
                                 "{} bytes allowed",
                                 header_bytes, kMaxHeaderBytes));
  const json::value value =
      parse_json({reinterpret_cast<const char*>(bytes.data()) + kPrefixBytes, header_bytes}, file,
                 kPrefixBytes);
  if (!value.is_object()) throw ParseError(file, kPrefixBytes, "header is not an object");
  const json::object& object = value.get_object();

  header_.tokenizer_hash = json_get<std::string>(object, "tokenizer_hash", file);
  header_.vocab_size = json_get<int64_t>(object, "vocab_size", file);
  if (header_.vocab_size < 1 || header_.vocab_size > kMaxVocabSize)
    throw ParseError(file, kPrefixBytes,
                     fmt::format("'vocab_size' is {}, expected 1 to 2^32", header_.vocab_size));
  header_.num_tokens = read_count(object, "num_tokens", bytes.size(), file);
  header_.num_documents = read_count(object, "num_documents", bytes.size(), file);
  header_.provenance = json_get<std::string>(object, "provenance", file);
  const bool has_marks = json_get<bool>(object, "has_marks", file);
  wide_ = needs_u32(header_.vocab_size);

  const Layout layout = layout_of(header_bytes, header_, has_marks);
  if (bytes.size() < layout.end)
    throw ParseError(
        file, bytes.size(),
        fmt::format("truncated: {} tokens in {} documents need {} bytes, the file has "
                    "{}",
                    header_.num_tokens, header_.num_documents, layout.end, bytes.size()));
  if (bytes.size() > layout.end)
    throw ParseError(file, layout.end, fmt::format("{} trailing bytes", bytes.size() - layout.end));
  tokens_ = bytes.data() + layout.tokens;
  document_ends_ = bytes.data() + layout.document_ends;
  marks_ = has_marks ? bytes.data() + layout.marks : nullptr;

  uint64_t previous = 0;
  for (int64_t d = 0; d < header_.num_documents; ++d) {
    const uint64_t end = load<uint64_t>(document_ends_ + d * 8);
    if (end <= previous || end > static_cast<uint64_t>(header_.num_tokens))
      throw ParseError(file, layout.document_ends + d * 8,
                       fmt::format("document {} ends at token {} after one that ends at {}, of {}",
                                   d, end, previous, header_.num_tokens));
    previous = end;
  }
  if (previous != static_cast<uint64_t>(header_.num_tokens))
    throw ParseError(
        file, layout.document_ends,
        fmt::format("the documents end at token {} of {}", previous, header_.num_tokens));
  const Progress phase("checking " + file);
  if (hash_hex(bytes.subspan(layout.tokens)) != json_get<std::string>(object, "payload_hash", file))
    throw ParseError(file, layout.tokens, "damaged: the contents do not match their hash");
}

int64_t TokenShard::document_begin(int64_t d) const {
  return d == 0 ? 0 : document_end(d - 1);
}

int64_t TokenShard::document_end(int64_t d) const {
  HALO_CHECK(d >= 0 && d < num_documents(), "{}: no document {} among {}", path().string(), d,
             num_documents());
  return static_cast<int64_t>(load<uint64_t>(document_ends_ + d * 8));
}

int64_t TokenShard::token(int64_t index) const {
  int64_t token;
  copy_tokens(index, index + 1, &token);
  return token;
}

void TokenShard::copy_tokens(int64_t begin, int64_t end, int64_t* out) const {
  HALO_CHECK(begin >= 0 && begin <= end && end <= header_.num_tokens,
             "{}: no tokens {} to {} among {}", path().string(), begin, end, header_.num_tokens);
  for (int64_t i = begin; i < end; ++i) {
    const int64_t token =
        wide_ ? int64_t{load<uint32_t>(tokens_ + i * 4)} : int64_t{load<uint16_t>(tokens_ + i * 2)};
    if (token >= header_.vocab_size)
      throw ParseError(
          path().string(), tokens_ - file_.bytes().data() + i * (wide_ ? 4 : 2),
          fmt::format("token {} is {}, beyond the vocabulary of {}", i, token, header_.vocab_size));
    out[i - begin] = token;
  }
}

void TokenShard::copy_marks(int64_t begin, int64_t end, uint8_t* out) const {
  HALO_CHECK(begin >= 0 && begin <= end && end <= header_.num_tokens,
             "{}: no tokens {} to {} among {}", path().string(), begin, end, header_.num_tokens);
  if (marks_ == nullptr) {
    std::fill_n(out, end - begin, uint8_t{0});
  } else if (end > begin) {
    std::memcpy(out, marks_ + begin, end - begin);
  }
}

bool TokenShard::has_marks() const {
  return marks_ != nullptr;
}

TokenShardWriter::TokenShardWriter(const std::filesystem::path& path, std::string tokenizer_hash,
                                   int64_t vocab_size, std::string provenance)
    : path_(path) {
  HALO_CHECK(vocab_size > 0 && vocab_size <= kMaxVocabSize,
             "{}: a vocabulary of {} cannot be stored", path.string(), vocab_size);
  header_.tokenizer_hash = std::move(tokenizer_hash);
  header_.vocab_size = vocab_size;
  header_.provenance = std::move(provenance);
}

void TokenShardWriter::add_document(std::span<const int64_t> tokens,
                                    std::span<const uint8_t> marks) {
  HALO_CHECK(!tokens.empty(), "{}: a document without tokens", path_.string());
  HALO_CHECK(marks.empty() || marks.size() == tokens.size(), "{}: {} marks for {} tokens",
             path_.string(), marks.size(), tokens.size());
  for (const int64_t token : tokens)
    HALO_CHECK(token >= 0 && token < header_.vocab_size,
               "{}: token {} is not of the vocabulary of {}", path_.string(), token,
               header_.vocab_size);
  for (const uint8_t mark : marks)
    HALO_CHECK(mark <= kMaxMark, "{}: mark {} is not 0, 1, 2 or 3", path_.string(), mark);
  // The first document with marks gives zeros to all before it.
  if (!marks.empty()) {
    marks_.resize(tokens_.size());
    marks_.insert(marks_.end(), marks.begin(), marks.end());
  }
  tokens_.insert(tokens_.end(), tokens.begin(), tokens.end());
  document_ends_.push_back(tokens_.size());
}

void TokenShardWriter::finish() {
  header_.num_tokens = tokens_.size();
  header_.num_documents = document_ends_.size();
  const bool has_marks = !marks_.empty();
  if (has_marks) marks_.resize(tokens_.size());

  const bool wide = needs_u32(header_.vocab_size);
  std::string payload(wide ? as_text(tokens_)
                           : as_text(std::vector<uint16_t>(tokens_.begin(), tokens_.end())));
  payload.resize(round_up(payload.size(), 8));
  payload += as_text(document_ends_);
  payload += as_text(marks_);

  std::string prefix(kMagic);
  const std::string header = json::serialize(
      header_to_json(header_, has_marks, hash_hex(std::as_bytes(std::span<const char>(payload)))));
  const uint32_t header_bytes = header.size();
  prefix.append(reinterpret_cast<const char*>(&header_bytes), sizeof(header_bytes));
  prefix += header;
  prefix.resize(round_up(prefix.size(), 64));

  AtomicFile file(path_);
  file.write(prefix);
  file.write(payload);
  file.commit();
}

}  // namespace halo
