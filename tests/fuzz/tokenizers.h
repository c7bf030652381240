// Small tokenizers of every kind, for the fuzz targets that encode and decode.
#pragma once

#include <string>
#include <vector>

#include "halo/base/json.h"
#include "halo/tokenizer/tokenizer.h"

namespace halo::fuzz {

struct Made {
  std::string json;
  bool lossless;  // decode(encode(text)) is the text, ill-formed bytes replaced
};

// Byte-level, 256 bytes and some merges, with the given components instead of Qwen2's.
inline std::string byte_level(const char* pre_tokenizer, const char* normalizer) {
  static const std::string trained = train_bpe({"the theme of the thesis then, 12 more words",
                                                "aaaa", "aaaa", "aaaa", "it's it's", "\n\n\n"},
                                               280, {"<|endoftext|>", "<|end|>"});
  json::value value = parse_json(trained, "fuzz");
  value.as_object()["pre_tokenizer"] = parse_json(pre_tokenizer, "fuzz");
  value.as_object()["normalizer"] = parse_json(normalizer, "fuzz");
  return json::serialize(value);
}

inline std::string characters(const char* pre_tokenizer, const char* normalizer,
                              const char* decoder) {
  json::object vocab{{"<unk>", 0}, {"<s>", 1}, {"</s>", 2}};
  for (int byte = 0; byte < 256; ++byte) {
    if (byte != 0xE9) vocab[fmt::format("<0x{:02X}>", byte)] = vocab.size();
  }
  for (const char* token : {"▁", "a", "b", "é", "▁a", "ab", "▁ab", "▁▁", "aa", "aaaa"})
    vocab[token] = vocab.size();
  const json::object model{
      {"type", "BPE"},    {"unk_token", "<unk>"},
      {"fuse_unk", true}, {"byte_fallback", true},
      {"vocab", vocab},   {"merges", {"a b", "▁ ab", "▁ a", "▁ ▁", "a a", "aa aa"}}};
  const json::array added{
      {{"id", 1}, {"content", "<s>"}, {"special", true}, {"lstrip", true}, {"rstrip", true}},
      {{"id", 2}, {"content", "</s>"}, {"special", false}, {"single_word", true}}};
  return json::serialize(json::object{{"model", model},
                                      {"added_tokens", added},
                                      {"pre_tokenizer", parse_json(pre_tokenizer, "fuzz")},
                                      {"normalizer", parse_json(normalizer, "fuzz")},
                                      {"decoder", parse_json(decoder, "fuzz")}});
}

inline std::vector<Made> make_all() {
  const std::string split = R"({"type": "Sequence", "pretokenizers": [
      {"type": "Split", "behavior": "Isolated", "invert": false, "pattern": {"Regex": "%"}},
      {"type": "ByteLevel", "add_prefix_space": false, "use_regex": false}]})";
  const auto split_by = [&](const char* regex) {
    return std::string(split).replace(split.find('%'), 1, regex);
  };
  const std::string llama3 = split_by(
      R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}{1,3}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+)");
  const std::string qwen2 = split_by(
      R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+)");
  const char* smollm2 = R"({"type": "Sequence", "pretokenizers": [
      {"type": "Digits", "individual_digits": true},
      {"type": "ByteLevel", "add_prefix_space": false, "use_regex": true}]})";
  const char* all_forms = R"({"type": "Sequence", "normalizers": [{"type": "NFKD"},
      {"type": "Lowercase"}, {"type": "Strip", "strip_left": true, "strip_right": true},
      {"type": "Replace", "pattern": {"Regex": "\\d+|x?"}, "content": "7"}, {"type": "NFKC"}]})";
  const char* old_decoder = R"({"type": "Sequence", "decoders": [
      {"type": "Replace", "pattern": {"String": "▁"}, "content": " "}, {"type": "ByteFallback"},
      {"type": "Fuse"}, {"type": "Strip", "content": " ", "start": 1, "stop": 2}]})";
  return {
      {byte_level(qwen2.c_str(), "null"), true},
      {byte_level(llama3.c_str(), "null"), true},
      {byte_level(smollm2, "null"), true},
      {byte_level(split_by(R"(\\p{Lu}\\p{Ll}*|[\\p{M}\\s]+)").c_str(), "null"), true},
      {byte_level(qwen2.c_str(), R"({"type": "NFC"})"), false},
      {byte_level(smollm2, all_forms), false},
      {characters("null", R"({"type": "Sequence", "normalizers": [
           {"type": "Prepend", "prepend": "▁"},
           {"type": "Replace", "pattern": {"String": " "}, "content": "▁"}]})",
                  old_decoder),
       false},
      {characters(R"({"type": "Metaspace", "replacement": "▁", "prepend_scheme": "first"})", "null",
                  R"({"type": "Metaspace", "replacement": "▁", "prepend_scheme": "first"})"),
       false},
  };
}

// Made once, used by every input; the first byte of an input chooses.
struct Choice {
  Tokenizer tokenizer;
  bool lossless;
};
inline const Choice& choose(uint8_t byte) {
  static const std::vector<Choice> all = [] {
    std::vector<Choice> out;
    for (Made& made : make_all()) out.push_back({Tokenizer(made.json, "fuzz"), made.lossless});
    return out;
  }();
  return all[byte % all.size()];
}

// A finding.
inline void require(bool holds) {
  if (!holds) __builtin_trap();
}

}  // namespace halo::fuzz
