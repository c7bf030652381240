// What is in a token shard.
#include <algorithm>
#include <bit>
#include <map>
#include <numeric>

#include "halo/base/check.h"
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

}  // namespace

json::object inspect_shard(const std::filesystem::path& path, const Tokenizer* tokenizer,
                           const std::string& tokenizer_hash) {
  const TokenShard shard(path);
  const TokenShardHeader& header = shard.header();
  std::vector<int64_t> lengths;
  for (int64_t d = 0; d < shard.num_documents(); ++d) {
    lengths.push_back(shard.document_end(d) - shard.document_begin(d));
  }
  json::object result{{"path", path.string()},
                      {"tokenizer_hash", header.tokenizer_hash},
                      {"vocab_size", header.vocab_size},
                      {"documents", header.num_documents},
                      {"tokens", header.num_tokens},
                      {"needle_documents", count_needle_documents(shard)},
                      {"lengths", describe_lengths(std::move(lengths))},
                      {"provenance", header.provenance}};
  if (tokenizer) {
    if (tokenizer_hash != header.tokenizer_hash) {
      throw_error("{}: made with tokenizer {}, not with this one, {}", path.string(),
                  header.tokenizer_hash, tokenizer_hash);
    }
    std::vector<int64_t> ids(std::min(kShownTokens, header.num_tokens));
    shard.copy_tokens(0, static_cast<int64_t>(ids.size()), ids.data());
    result["first"] = tokenizer->decode(ids);
  }
  return result;
}

}  // namespace halo
