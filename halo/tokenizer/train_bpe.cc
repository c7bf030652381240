// Byte-level BPE training on distinct words with their counts. Every pair of neighbouring tokens
// has its exact count (positions times the word's count) and a list of the words that had it; the
// next merge comes from a heap whose entries are checked against the exact count when they come up.
#include <algorithm>
#include <boost/unordered/unordered_flat_map.hpp>
#include <boost/unordered/unordered_flat_set.hpp>
#include <queue>
#include <tuple>
#include <utility>

#include "halo/base/check.h"
#include "halo/base/json.h"
#include "halo/base/utf8.h"
#include "halo/tokenizer/bpe.h"
#include "halo/tokenizer/byte_alphabet.h"
#include "halo/tokenizer/normalize.h"
#include "halo/tokenizer/pieces.h"
#include "halo/tokenizer/tokenizer.h"

namespace halo {
namespace {

using Pair = std::pair<int32_t, int32_t>;

struct Word {
  std::vector<int32_t> tokens;
  int64_t count;
};

std::vector<Word> count_words(const std::vector<std::string>& texts) {
  StringMap<int64_t> counts;
  for (const std::string& text : texts) {
    const std::string normalized = normalize(replace_invalid_utf8(text), NormalForm::kNfc);
    for (size_t begin = 0; begin < normalized.size();) {
      const size_t end = piece_end(Pattern::kQwen2, normalized, begin);
      const auto piece = std::string_view(normalized).substr(begin, end - begin);
      const auto found = counts.find(piece);
      if (found != counts.end()) {
        ++found->second;
      } else {
        counts.emplace(piece, 1);
      }
      begin = end;
    }
  }
  std::vector<Word> words;
  words.reserve(counts.size());
  for (const auto& [text, count] : counts) {
    const auto* bytes = reinterpret_cast<const uint8_t*>(text.data());
    words.push_back({{bytes, bytes + text.size()}, count});
  }
  return words;
}

class BpeTrainer {
 public:
  explicit BpeTrainer(std::vector<Word> words) : words_(std::move(words)), heap_(Later{&tokens_}) {
    for (int byte = 0; byte < 256; ++byte) add_token(std::string(1, static_cast<char>(byte)));
    for (size_t w = 0; w < words_.size(); ++w) {
      for_each_pair(words_[w], [&](Pair pair) { add_pair(pair, static_cast<int32_t>(w)); });
    }
    for (const auto& [pair, use] : uses_) heap_.push({use.count, pair});
  }

  // Merges until there are `size` tokens or nothing is left to merge.
  void grow(size_t size) {
    while (tokens_.size() < size && !heap_.empty()) {
      const Candidate top = heap_.top();
      heap_.pop();
      const auto found = uses_.find(top.pair);
      const int64_t count = found == uses_.end() ? 0 : found->second.count;
      if (count == top.count) {
        merge(top.pair);
      } else if (count > 0) {
        heap_.push({count, top.pair});
      }
    }
  }

  const std::vector<std::string>& tokens() const { return tokens_; }  // bytes by id
  const std::vector<Pair>& merges() const { return merges_; }

 private:
  struct Use {
    int64_t count = 0;
    std::vector<int32_t> words;  // all that have the pair, and some that had it
  };
  struct Candidate {
    int64_t count;
    Pair pair;
  };
  struct Later {
    const std::vector<std::string>* tokens;
    bool operator()(const Candidate& a, const Candidate& b) const {
      if (a.count != b.count) return a.count < b.count;
      const auto& t = *tokens;
      return std::tie(t[a.pair.first], t[a.pair.second]) >
             std::tie(t[b.pair.first], t[b.pair.second]);
    }
  };

  template <class F>
  static void for_each_pair(const Word& word, const F& f) {
    for (size_t i = 1; i < word.tokens.size(); ++i) f(Pair{word.tokens[i - 1], word.tokens[i]});
  }

  int32_t add_token(const std::string& bytes) {
    const auto [place, added] = ids_.emplace(bytes, static_cast<int32_t>(tokens_.size()));
    if (added) tokens_.push_back(bytes);
    return place->second;
  }

  void add_pair(Pair pair, int32_t w) {
    Use& use = uses_[pair];
    use.count += words_[w].count;
    if (use.words.empty() || use.words.back() != w) use.words.push_back(w);
  }

  void merge(Pair pair) {
    // Two merges can make the same bytes ("a" + "bc", "ab" + "c"): one token then. With it a pair
    // that was merged before can come back; its rank stays the first.
    const int32_t merged = add_token(tokens_[pair.first] + tokens_[pair.second]);
    if (merged_.insert(pair).second) merges_.push_back(pair);
    const std::vector<int32_t> words = std::move(uses_[pair].words);
    boost::unordered_flat_set<Pair> grown;
    for (const int32_t w : words) {
      Word& word = words_[w];
      if (!has_pair(word, pair)) continue;
      for_each_pair(word, [&](Pair p) { uses_[p].count -= word.count; });
      replace_pair(word.tokens, pair, merged);
      for_each_pair(word, [&](Pair p) {
        if (p.first == merged || p.second == merged) {
          add_pair(p, w);
          grown.insert(p);
        } else {
          uses_[p].count += word.count;
        }
      });
    }
    uses_.erase(pair);
    for (const Pair& p : grown) heap_.push({uses_[p].count, p});
  }

  static bool has_pair(const Word& word, Pair pair) {
    const auto is_pair = [&](int32_t a, int32_t b) { return Pair{a, b} == pair; };
    return std::adjacent_find(word.tokens.begin(), word.tokens.end(), is_pair) != word.tokens.end();
  }

  static void replace_pair(std::vector<int32_t>& tokens, Pair pair, int32_t merged) {
    size_t size = 0;
    for (size_t i = 0; i < tokens.size(); ++size) {
      const bool here = i + 1 < tokens.size() && Pair{tokens[i], tokens[i + 1]} == pair;
      tokens[size] = here ? merged : tokens[i];
      i += here ? 2 : 1;
    }
    tokens.resize(size);
  }

  std::vector<Word> words_;
  std::vector<std::string> tokens_;
  StringMap<int32_t> ids_;
  std::vector<Pair> merges_;
  boost::unordered_flat_set<Pair> merged_;
  boost::unordered_flat_map<Pair, Use> uses_;
  std::priority_queue<Candidate, std::vector<Candidate>, Later> heap_;
};

json::object byte_level(bool add_prefix_space, bool trim_offsets, bool use_regex) {
  return {{"type", "ByteLevel"},
          {"add_prefix_space", add_prefix_space},
          {"trim_offsets", trim_offsets},
          {"use_regex", use_regex}};
}

json::object tokenizer_json(const BpeTrainer& trainer,
                            const std::vector<std::string>& special_tokens) {
  json::array added;
  for (const std::string& text : special_tokens) {
    added.push_back({{"id", trainer.tokens().size() + added.size()},
                     {"content", text},
                     {"single_word", false},
                     {"lstrip", false},
                     {"rstrip", false},
                     {"normalized", false},
                     {"special", true}});
  }
  std::vector<std::string> tokens;
  for (const std::string& bytes : trainer.tokens()) tokens.push_back(bytes_to_alphabet(bytes));
  json::object vocab;
  for (size_t id = 0; id < tokens.size(); ++id) vocab.emplace(tokens[id], id);
  json::array merges;
  for (const auto& [left, right] : trainer.merges())
    merges.emplace_back(tokens[left] + " " + tokens[right]);

  const json::object split = {{"type", "Split"},
                              {"pattern", {{"Regex", kQwen2Pattern}}},
                              {"behavior", "Isolated"},
                              {"invert", false}};
  const json::object model = {{"type", "BPE"},
                              {"dropout", nullptr},
                              {"unk_token", nullptr},
                              {"continuing_subword_prefix", nullptr},
                              {"end_of_word_suffix", nullptr},
                              {"fuse_unk", false},
                              {"byte_fallback", false},
                              {"ignore_merges", false},
                              {"vocab", vocab},
                              {"merges", merges}};
  return {{"version", "1.0"},
          {"truncation", nullptr},
          {"padding", nullptr},
          {"added_tokens", added},
          {"normalizer", {{"type", "NFC"}}},
          {"pre_tokenizer",
           {{"type", "Sequence"},
            {"pretokenizers", json::array{split, byte_level(false, false, false)}}}},
          {"post_processor", nullptr},
          {"decoder", byte_level(true, true, true)},
          {"model", model}};
}

}  // namespace

std::string train_bpe(const std::vector<std::string>& texts, int64_t vocab_size,
                      const std::vector<std::string>& special_tokens) {
  const auto num_special = static_cast<int64_t>(special_tokens.size());
  if (vocab_size < 256 + num_special) {
    throw_error("train_bpe: {} ids are too few; 256 bytes and {} special tokens need {}",
                vocab_size, num_special, 256 + num_special);
  }
  BpeTrainer trainer(count_words(texts));
  trainer.grow(static_cast<size_t>(vocab_size - num_special));
  const auto size = static_cast<int64_t>(trainer.tokens().size()) + num_special;
  if (size < vocab_size) {
    throw_error("train_bpe: the texts give {} ids, not {}; give more text or ask for fewer", size,
                vocab_size);
  }
  std::string text = format_json(tokenizer_json(trainer, special_tokens));
  Tokenizer(text,
            "train_bpe");  // refuses special tokens that are empty, repeated or in the vocabulary
  return text;
}

}  // namespace halo
