// Documents into token shards, and a look into them.
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "halo/base/files.h"
#include "halo/base/json.h"
#include "halo/base/settings.h"
#include "halo/formats/token_shard.h"
#include "halo/tokenizer/tokenizer.h"

namespace halo {

// A folder of shards shard-00000.halotok, ... of one origin. It appears under its name as a whole,
// in finish(); a folder that is already there and not empty is an Error.
class ShardFolderWriter {
 public:
  // A shard is closed by the document that brings it to `shard_tokens`. `provenance` is JSON text.
  ShardFolderWriter(std::filesystem::path folder, std::string tokenizer_hash, int64_t vocab_size,
                    std::string provenance, int64_t shard_tokens);
  void add_document(std::span<const int64_t> tokens, std::span<const uint8_t> marks = {});
  void finish();  // without it nothing is left
  int64_t num_shards() const { return num_shards_; }

 private:
  std::filesystem::path folder_;
  std::optional<TemporaryPath> temporary_;
  std::string tokenizer_hash_, provenance_;
  int64_t vocab_size_, shard_tokens_;
  int64_t num_shards_ = 0, tokens_in_shard_ = 0;
  std::unique_ptr<TokenShardWriter> shard_;
};

struct PackOptions {
  bool join_sources = false;
  std::string document_end;
  int64_t shard_tokens = int64_t{1} << 26;

  void settings(Settings& s) {
    s("join_sources", join_sources,
      {.help = "join documents whose source agrees up to its colon (one book), in natural order of "
               "the rest; reads all text into memory"});
    s("document_end", document_end,
      {.help = "token that ends a document (empty: the text end token)"});
    s("shard_tokens", shard_tokens, {.help = "tokens of a shard file", .min = 1, .max = 1e12});
  }
};

struct PackCounts {
  int64_t files = 0;            // that were read
  int64_t files_skipped = 0;    // of folders, their kind not being known
  int64_t documents_read = 0;   // from the inputs
  int64_t documents_empty = 0;  // of those, left out
  int64_t documents = 0;        // written, after joining
  int64_t bytes = 0;            // of text, UTF-8
  int64_t tokens = 0;           // with end tokens
  int64_t shards = 0;
};

// Tokenises the documents of `inputs` (readers.h) into the folder `output`. Each ends with the end
// token, and begins with document_begin(). The order is that of the inputs, whatever the number of
// threads.
PackCounts pack(const std::vector<std::filesystem::path>& inputs,
                const std::filesystem::path& tokenizer_json, const std::filesystem::path& output,
                const PackOptions& options);

// One of `count` parts of the work of many machines.
struct PackPart {
  int64_t index = 0, count = 1;
};
// "3/16"; a UsageError where it is none.
PackPart parse_pack_part(const std::string& text);

// Packs files index, index + count, ... of `inputs`, each for itself, into
// OUTPUT/file-00003-shard-00000.halotok, ...: all parts together leave the same shards, whatever
// their number. What is there under these names is overwritten.
PackCounts pack_part(const std::vector<std::filesystem::path>& inputs,
                     const std::filesystem::path& tokenizer_json,
                     const std::filesystem::path& output, const PackOptions& options,
                     const PackPart& part);

json::object counts_to_json(const PackCounts& counts);

// The token that begins documents, if there is one: `bos_token` where the tokenizer_config.json
// beside `tokenizer_json` has `add_bos_token`; where it does not say, what Tokenizer puts first.
std::optional<int64_t> document_begin(const Tokenizer& tokenizer,
                                      const std::filesystem::path& tokenizer_json);

// {path, tokenizer_hash, vocab_size, documents, tokens, needle_documents, lengths {min, median,
// mean, max, histogram [{up_to, documents}]}, provenance, first} of a shard; `first` is the text of
// its first tokens where a tokenizer is given (another one than the shard's is an Error). Of a
// folder or a glob (loader.h) the same over all its shards, without provenance, and what is each
// one's own in `shards`; they must be of one tokenizer.
json::object inspect_shards(const std::string& name, const Tokenizer* tokenizer,
                            const std::string& tokenizer_hash);

}  // namespace halo
