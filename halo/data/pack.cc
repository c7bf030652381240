#include "halo/data/pack.h"

#include <ATen/Parallel.h>

#include <algorithm>
#include <map>
#include <numeric>
#include <string_view>
#include <utility>

#include "halo/base/check.h"
#include "halo/base/files.h"
#include "halo/base/progress.h"
#include "halo/base/threads.h"
#include "halo/data/readers.h"
#include "halo/tokenizer/special_tokens.h"

namespace halo {

namespace fs = std::filesystem;

namespace {

// Text tokenised at once: enough for every thread, little beside a shard.
constexpr size_t kBatchBytes = size_t{8} << 20;

bool is_digit(char c) {
  return c >= '0' && c <= '9';
}

// The digits that `text` starts with, without leading zeros; all of them are removed from it.
std::string_view take_number(std::string_view& text) {
  const size_t length = std::min(
      text.size(),
      static_cast<size_t>(std::find_if_not(text.begin(), text.end(), is_digit) - text.begin()));
  std::string_view number = text.substr(0, length);
  text.remove_prefix(length);
  number.remove_prefix(std::min(number.size(), number.find_first_not_of('0')));
  return number;
}

// "chapter-2" before "chapter-10".
bool natural_less(std::string_view a, std::string_view b) {
  while (!a.empty() && !b.empty()) {
    if (is_digit(a.front()) && is_digit(b.front())) {
      const auto x = take_number(a), y = take_number(b);
      if (x.size() != y.size()) return x.size() < y.size();
      if (x != y) return x < y;
    } else {
      if (a.front() != b.front()) return a.front() < b.front();
      a.remove_prefix(1);
      b.remove_prefix(1);
    }
  }
  return a.size() < b.size();
}

std::string_view work_of(const Document& document) {
  const std::string_view source = document.source;
  return source.substr(0, source.find(':'));
}

std::string_view part_of(const Document& document) {
  const std::string_view source = document.source;
  const size_t colon = source.find(':');
  return colon == std::string_view::npos ? std::string_view() : source.substr(colon + 1);
}

// One document a work, in order of first appearance; those without a source stay alone.
std::vector<Document> join_by_source(std::vector<Document> documents) {
  std::map<std::string, size_t, std::less<>> group_of;
  std::vector<std::vector<Document>> groups;
  for (auto& document : documents) {
    size_t group = groups.size();
    if (!document.source.empty()) {
      group = group_of.try_emplace(std::string(work_of(document)), group).first->second;
    }
    if (group == groups.size()) groups.emplace_back();
    groups[group].push_back(std::move(document));
  }
  std::vector<Document> joined;
  for (auto& group : groups) {
    std::stable_sort(group.begin(), group.end(), [](const Document& a, const Document& b) {
      return natural_less(part_of(a), part_of(b));
    });
    Document whole{std::move(group.front().text), std::string(work_of(group.front()))};
    for (size_t i = 1; i < group.size(); ++i) {
      whole.text += "\n\n";
      whole.text += group[i].text;
    }
    joined.push_back(std::move(whole));
  }
  return joined;
}

// Tokenises batches of documents on all threads and writes them in order.
class Packer {
 public:
  Packer(const Tokenizer& tokenizer, std::optional<int64_t> begin, int64_t end,
         ShardFolderWriter& writer, PackCounts& counts)
      : tokenizer_(tokenizer),
        begin_(begin),
        end_(end),
        writer_(writer),
        counts_(counts),
        progress_("pack") {}

  void add(Document document) {
    batch_bytes_ += document.text.size();
    batch_.push_back(std::move(document.text));
    if (batch_bytes_ >= kBatchBytes) flush();
  }

  void flush() {
    const auto count = static_cast<int64_t>(batch_.size());
    std::vector<std::vector<int64_t>> tokens(count);
    parallel_for(count, at::get_num_threads(),
                 [&](int64_t i) { tokens[i] = tokenizer_.encode(batch_[i]); });
    for (auto& ids : tokens) {
      if (begin_ && (ids.empty() || ids.front() != *begin_)) ids.insert(ids.begin(), *begin_);
      ids.push_back(end_);
      writer_.add_document(ids);
      counts_.tokens += static_cast<int64_t>(ids.size());
    }
    counts_.documents += count;
    counts_.bytes += static_cast<int64_t>(batch_bytes_);
    batch_.clear();
    batch_bytes_ = 0;
    progress_.update(counts_.documents,
                     fmt::format("{} documents, {:.1f} MB of text, {} tokens", counts_.documents,
                                 double(counts_.bytes) / 1e6, counts_.tokens));
  }

 private:
  const Tokenizer& tokenizer_;
  std::optional<int64_t> begin_;
  int64_t end_;
  ShardFolderWriter& writer_;
  PackCounts& counts_;
  Progress progress_;
  std::vector<std::string> batch_;
  size_t batch_bytes_ = 0;
};

std::string provenance_of(const std::vector<fs::path>& files, const fs::path& tokenizer_json,
                          const PackOptions& options) {
  json::array inputs;
  for (const auto& file : files) {
    inputs.push_back(json::object{{"file", file.filename().string()}, {"hash", hash_file(file)}});
  }
  return json::serialize(json::object{{"made_by", "halo data pack"},
                                      {"inputs", std::move(inputs)},
                                      {"tokenizer", tokenizer_json.filename().string()},
                                      {"join_sources", options.join_sources},
                                      {"document_end", options.document_end}});
}

}  // namespace

ShardFolderWriter::ShardFolderWriter(fs::path folder, std::string tokenizer_hash,
                                     int64_t vocab_size, std::string provenance,
                                     int64_t shard_tokens)
    : folder_(fs::absolute(folder).lexically_normal()),
      tokenizer_hash_(std::move(tokenizer_hash)),
      provenance_(std::move(provenance)),
      vocab_size_(vocab_size),
      shard_tokens_(shard_tokens) {
  if (!folder_.has_filename()) folder_ = folder_.parent_path();  // a trailing slash
  if (shard_tokens < 1) throw_error("shard_tokens is {}; it must be at least 1", shard_tokens);
  if (fs::exists(folder_) && !(fs::is_directory(folder_) && fs::is_empty(folder_))) {
    throw_error("{}: already there; remove it or name another folder", folder_.string());
  }
  temporary_.emplace(folder_.string() + ".tmp");
  std::error_code error;
  fs::remove_all(temporary_->path(), error);
  if (!error) fs::create_directories(temporary_->path(), error);
  if (error) {
    throw_error("{}: cannot make the folder: {}", temporary_->path().string(), error.message());
  }
}

void ShardFolderWriter::add_document(std::span<const int64_t> tokens,
                                     std::span<const uint8_t> marks) {
  if (!shard_) {
    const auto name = fmt::format("shard-{:05}.halotok", num_shards_);
    shard_ = std::make_unique<TokenShardWriter>(temporary_->path() / name, tokenizer_hash_,
                                                vocab_size_, provenance_);
    ++num_shards_;
    tokens_in_shard_ = 0;
  }
  shard_->add_document(tokens, marks);
  tokens_in_shard_ += static_cast<int64_t>(tokens.size());
  if (tokens_in_shard_ >= shard_tokens_) {
    shard_->finish();
    shard_.reset();
  }
}

void ShardFolderWriter::finish() {
  if (shard_) shard_->finish();
  shard_.reset();
  if (num_shards_ == 0) throw_error("{}: no documents to write", folder_.string());
  sync_directory(temporary_->path());
  temporary_->rename_to(folder_);
  sync_directory(folder_.parent_path());
}

std::optional<int64_t> document_begin(const Tokenizer& tokenizer, const fs::path& tokenizer_json) {
  const fs::path path = tokenizer_json.parent_path() / "tokenizer_config.json";
  if (!fs::exists(path)) return tokenizer.document_begin();
  const json::value value = read_json(path);
  if (!value.is_object()) throw_error("{}: not a JSON object", path.string());
  const json::object& config = value.as_object();
  if (!config.contains("add_bos_token")) return tokenizer.document_begin();
  if (!json_get<bool>(config, "add_bos_token", path.string())) return std::nullopt;
  const json::object tokens = special_tokens(tokenizer_json.parent_path());
  const json::value* bos = tokens.if_contains("bos_token");
  if (!bos) throw_error("{}: add_bos_token is true, but bos_token names no token", path.string());
  const auto id = tokenizer.token_id(std::string_view(bos->as_string()));
  if (!id) {
    throw_error("{}: the vocabulary has no bos_token '{}'", path.string(),
                std::string_view(bos->as_string()));
  }
  return id;
}

PackCounts pack(const std::vector<fs::path>& inputs, const fs::path& tokenizer_json,
                const fs::path& output, const PackOptions& options) {
  const InputFiles files = expand_inputs(inputs);
  const Tokenizer tokenizer(tokenizer_json);
  ShardFolderWriter writer(output, hash_file(tokenizer_json), tokenizer.vocab_size(),
                           provenance_of(files.read, tokenizer_json, options),
                           options.shard_tokens);
  PackCounts counts;
  counts.files = static_cast<int64_t>(files.read.size());
  counts.files_skipped = static_cast<int64_t>(files.skipped.size());
  Packer packer(tokenizer, document_begin(tokenizer, tokenizer_json),
                tokenizer.document_end(options.document_end), writer, counts);
  std::vector<Document> held;  // for joining
  const auto take = [&](Document document) {
    ++counts.documents_read;
    if (document.text.empty()) {
      ++counts.documents_empty;
    } else if (options.join_sources) {
      held.push_back(std::move(document));
    } else {
      packer.add(std::move(document));
    }
  };
  read_documents(files.read, take, options.join_sources ? SourceUse::kNeeded : SourceUse::kIfText);
  for (auto& document : join_by_source(std::move(held))) packer.add(std::move(document));
  packer.flush();
  writer.finish();
  counts.shards = writer.num_shards();
  return counts;
}

json::object counts_to_json(const PackCounts& counts) {
  return {{"files", counts.files},
          {"files_skipped", counts.files_skipped},
          {"documents_read", counts.documents_read},
          {"documents_empty", counts.documents_empty},
          {"documents", counts.documents},
          {"bytes", counts.bytes},
          {"tokens", counts.tokens},
          {"shards", counts.shards}};
}

}  // namespace halo
