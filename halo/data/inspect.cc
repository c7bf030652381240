// What is in token shards.
#include <algorithm>
#include <bit>
#include <map>
#include <numeric>

#include "halo/base/check.h"
#include "halo/data/loader.h"
#include "halo/data/pack.h"

namespace halo {

namespace {

constexpr int64_t kShownTokens = 64;

json::object describe_lengths(std::vector<int64_t> lengths) {
  if (lengths.empty()) return {};
  std::sort(lengths.begin(), lengths.end());
  std::map<uint64_t, int64_t> counts;  // by the power of two that holds the length
  for (const int64_t length : lengths) ++counts[std::bit_ceil(static_cast<uint64_t>(length))];
  json::array histogram;
  for (const auto& [up_to, documents] : counts) {
    histogram.push_back(json::object{{"up_to", up_to}, {"documents", documents}});
  }
  const auto sum = std::accumulate(lengths.begin(), lengths.end(), int64_t{0});
  return {{"min", lengths.front()},
          {"median", lengths[lengths.size() / 2]},
          {"mean", static_cast<double>(sum) / static_cast<double>(lengths.size())},
          {"max", lengths.back()},
          {"histogram", std::move(histogram)}};
}

int64_t count_needle_documents(const TokenShard& shard) {
  if (!shard.has_marks()) return 0;
  int64_t count = 0;
  std::vector<uint8_t> marks;
  for (int64_t d = 0; d < shard.num_documents(); ++d) {
    marks.resize(shard.document_end(d) - shard.document_begin(d));
    shard.copy_marks(shard.document_begin(d), shard.document_end(d), marks.data());
    count += std::any_of(marks.begin(), marks.end(), [](uint8_t mark) { return mark != 0; });
  }
  return count;
}

struct Described {
  json::object shard;
  std::vector<int64_t> lengths;
};

Described describe(const std::filesystem::path& path) {
  const TokenShard shard(path);
  const TokenShardHeader& header = shard.header();
  Described out;
  for (int64_t d = 0; d < shard.num_documents(); ++d)
    out.lengths.push_back(shard.document_end(d) - shard.document_begin(d));
  out.shard = {{"path", path.string()},
               {"tokenizer_hash", header.tokenizer_hash},
               {"vocab_size", header.vocab_size},
               {"documents", header.num_documents},
               {"tokens", header.num_tokens},
               {"needle_documents", count_needle_documents(shard)},
               {"lengths", describe_lengths(out.lengths)},
               {"provenance", header.provenance}};
  return out;
}

// The sums, and each one's figures; of one tokenizer.
json::object describe_all(const std::string& name,
                          const std::vector<std::filesystem::path>& paths) {
  std::vector<int64_t> lengths;
  json::array shards;
  json::object out{{"path", name}};
  for (const auto& path : paths) {
    Described found = describe(path);
    lengths.insert(lengths.end(), found.lengths.begin(), found.lengths.end());
    json::object& shard = found.shard;
    for (const char* key : {"tokenizer_hash", "vocab_size"}) {
      const json::value& first = out.emplace(key, shard.at(key)).first->value();
      if (first != shard.at(key)) {
        throw_error("{}: its shards are of several tokenizers: '{}' has {} {}, '{}' has {}", name,
                    paths.front().filename().string(), key, json::serialize(first),
                    path.filename().string(), json::serialize(shard.at(key)));
      }
      shard.erase(key);
    }
    for (const char* key : {"documents", "tokens", "needle_documents"}) {
      json::value& sum = out.emplace(key, 0).first->value();
      sum = sum.as_int64() + shard.at(key).as_int64();
    }
    shards.push_back(std::move(shard));
  }
  out["lengths"] = describe_lengths(std::move(lengths));
  out["shards"] = std::move(shards);
  return out;
}

}  // namespace

json::object inspect_shards(const std::string& name, const Tokenizer* tokenizer,
                            const std::string& tokenizer_hash) {
  const std::vector<std::filesystem::path> paths = expand_shards(name);
  const bool is_file = std::filesystem::is_regular_file(name);
  json::object result = is_file ? describe(name).shard : describe_all(name, paths);
  if (tokenizer) {
    if (tokenizer_hash != result.at("tokenizer_hash").as_string()) {
      throw_error("{}: made with tokenizer {}, not with this one, {}", name,
                  std::string(result.at("tokenizer_hash").as_string()), tokenizer_hash);
    }
    const TokenShard shard(paths.front());
    std::vector<int64_t> ids(std::min(kShownTokens, shard.header().num_tokens));
    shard.copy_tokens(0, static_cast<int64_t>(ids.size()), ids.data());
    result["first"] = tokenizer->decode(ids);
  }
  return result;
}

}  // namespace halo
