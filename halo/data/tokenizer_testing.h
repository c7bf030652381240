// Tokenizers of the kinds that models have, small, for tests: what a text's begin, its spaces and
// its digits become.
#pragma once

#include <fmt/format.h>

#include <functional>
#include <string>
#include <utility>
#include <vector>

#include "halo/base/json.h"
#include "halo/data/shard_testing.h"

namespace halo::test {

class MergeList {
 public:
  explicit MergeList(json::object vocab) : vocab_(std::move(vocab)) {}

  void add_token(const std::string& text) {
    if (!vocab_.contains(text)) vocab_[text] = vocab_.size();
  }
  void add_merge(const std::string& left, const std::string& right) {
    add_token(left + right);
    merges_.push_back(json::array{json::string(left), json::string(right)});
  }
  // A word becomes one token, letter by letter from its first one.
  void add_word(const std::vector<std::string>& letters) {
    std::string begin = letters.front();
    for (size_t i = 1; i < letters.size(); ++i) {
      if (!vocab_.contains(begin + letters[i])) add_merge(begin, letters[i]);
      begin += letters[i];
    }
  }
  const json::object& vocab() const { return vocab_; }
  const json::array& merges() const { return merges_; }

 private:
  json::object vocab_;
  json::array merges_;
};

inline json::object begin_token_first(const std::string& token, int64_t id) {
  const json::object special = {{"SpecialToken", {{"id", token}, {"type_id", 0}}}};
  const json::array single = {special, {{"Sequence", {{"id", "A"}, {"type_id", 0}}}}};
  return {{"type", "TemplateProcessing"},
          {"single", single},
          {"pair", single},
          {"special_tokens",
           {{token, {{"id", token}, {"ids", json::array{id}}, {"tokens", json::array{token}}}}}}};
}

inline json::object special_token(const std::string& text, int64_t id) {
  return {{"id", id},        {"content", text},     {"single_word", false}, {"lstrip", false},
          {"rstrip", false}, {"normalized", false}, {"special", true}};
}

// As Llama 2's: a space in front of every text, words with the space before them, bytes where the
// vocabulary has no letter, <s> first. With `metaspace` as Mistral's later files write it.
inline std::string prefixed_space_json(bool metaspace = false) {
  const std::string space = "▁";
  json::object vocab;
  const std::vector<std::string> specials = {"<unk>", "<s>", "</s>"};
  json::array added;
  for (const std::string& token : specials) {
    added.push_back(special_token(token, static_cast<int64_t>(vocab.size())));
    vocab[token] = vocab.size();
  }
  for (int byte = 0; byte < 256; ++byte) vocab[fmt::format("<0x{:02X}>", byte)] = vocab.size();
  MergeList list(vocab);
  list.add_token(space);
  for (char c = '!'; c <= '~'; ++c) list.add_token(std::string(1, c));
  for (const std::string word :
       {"The", "What", "Tell", "secret", "number", "of", "is", "the", "rain"}) {
    std::vector<std::string> letters = {space};
    for (const char c : word) letters.emplace_back(1, c);
    list.add_word(letters);
  }
  json::object replace = {{"type", "Replace"}, {"pattern", {{"String", " "}}}, {"content", space}};
  const json::object prepend = {{"type", "Prepend"}, {"prepend", space}};
  const json::object meta = {
      {"type", "Metaspace"}, {"replacement", space}, {"prepend_scheme", "first"}, {"split", false}};
  const json::object back = {
      {"type", "Replace"}, {"pattern", {{"String", space}}}, {"content", " "}};
  const json::object strip = {{"type", "Strip"}, {"content", " "}, {"start", 1}, {"stop", 0}};
  json::value normalizer, pre_tokenizer;
  if (metaspace) {
    pre_tokenizer = meta;
  } else {
    normalizer = {{"type", "Sequence"}, {"normalizers", json::array{prepend, replace}}};
  }
  return json::serialize(json::object{
      {"version", "1.0"},
      {"added_tokens", added},
      {"normalizer", normalizer},
      {"pre_tokenizer", pre_tokenizer},
      {"post_processor", begin_token_first("<s>", 1)},
      {"decoder",
       {{"type", "Sequence"},
        {"decoders", json::array{back, {{"type", "ByteFallback"}}, {{"type", "Fuse"}}, strip}}}},
      {"model",
       {{"type", "BPE"},
        {"unk_token", "<unk>"},
        {"fuse_unk", true},
        {"byte_fallback", true},
        {"vocab", list.vocab()},
        {"merges", list.merges()}}}});
}

// tokenizer_json() with more merges and another pre-tokenizer.
inline json::object byte_level_with(const json::value& pre_tokenizer,
                                    const std::function<void(MergeList&)>& add) {
  json::object file = parse_json(tokenizer_json(), "tokenizer.json").as_object();
  json::object& model = file["model"].as_object();
  // Special tokens stay where they are: new ids go behind them.
  json::object vocab = model["vocab"].as_object();
  for (const json::value& token : file["added_tokens"].as_array()) {
    vocab[token.at("content").as_string()] = token.at("id");
  }
  MergeList list(vocab);
  add(list);
  model["vocab"] = list.vocab();
  json::array& merges = model["merges"].as_array();
  merges.insert(merges.end(), list.merges().begin(), list.merges().end());
  file["pre_tokenizer"] = pre_tokenizer;
  return file;
}

// As GPT-2's: a number belongs together with the space in front of it, and its digits merge in
// pairs.
inline std::string digit_pairs_json() {
  const json::object pattern = {{"type", "ByteLevel"},
                                {"add_prefix_space", false},
                                {"trim_offsets", false},
                                {"use_regex", true}};
  return json::serialize(byte_level_with(pattern, [](MergeList& list) {
    for (char a = '0'; a <= '9'; ++a) list.add_merge("Ġ", {a});
    for (char a = '0'; a <= '9'; ++a) {
      for (char b = '0'; b <= '9'; ++b) list.add_merge({a}, {b});
    }
  }));
}

// As Llama 3's: a begin token, and up to three digits a token.
inline std::string digit_triples_json() {
  const json::object split = {{"type", "Split"},
                              {"pattern",
                               {{"Regex",
                                 "[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}{1,3}| ?[^\\s\\p{L}\\p{N}]+"
                                 "[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+"}}},
                              {"behavior", "Isolated"},
                              {"invert", false}};
  const json::object bytes = {{"type", "ByteLevel"},
                              {"add_prefix_space", false},
                              {"trim_offsets", false},
                              {"use_regex", false}};
  const json::object pattern = {{"type", "Sequence"}, {"pretokenizers", json::array{split, bytes}}};
  json::object file = byte_level_with(pattern, [](MergeList& list) {
    for (char a = '0'; a <= '9'; ++a) {
      for (char b = '0'; b <= '9'; ++b) list.add_merge({a}, {b});
    }
    for (int pair = 0; pair < 100; ++pair) {
      for (char c = '0'; c <= '9'; ++c) {
        list.add_merge(fmt::format("{:02}", pair), {c});
        list.add_merge({c}, fmt::format("{:02}", pair));
      }
    }
  });
  const auto begin = static_cast<int64_t>(file["model"].at("vocab").as_object().size());
  file["added_tokens"].as_array().push_back(special_token("<|begin_of_text|>", begin));
  file["post_processor"] = begin_token_first("<|begin_of_text|>", begin);
  return json::serialize(file);
}

}  // namespace halo::test
