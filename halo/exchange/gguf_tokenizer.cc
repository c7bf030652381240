// The tokenizer inside a GGUF file as Hugging Face's files. Such a file names its pre-tokenizer
// instead of describing it; the components of each name are written here.
#include <algorithm>
#include <set>
#include <unordered_map>

#include "halo/base/check.h"
#include "halo/base/nearest.h"
#include "halo/exchange/gguf_model.h"

namespace halo {
namespace {

// Kinds of tokens.
enum TokenType : int64_t { kNormal = 1, kUnknown, kControl, kUserDefined, kUnused, kByte };

constexpr const char* kQwen2Pattern =
    "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}| "
    "?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|"
    "\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+";
constexpr const char* kLlama3Pattern =
    "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}{1,3}| "
    "?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+";
constexpr const char* kSpace = "\u2581";  // stands for a space in SentencePiece vocabularies

json::object byte_level(bool add_prefix_space, bool use_regex) {
  return {{"type", "ByteLevel"},
          {"add_prefix_space", add_prefix_space},
          {"trim_offsets", true},
          {"use_regex", use_regex}};
}

json::object sequence(const char* key, json::array parts) {
  return {{"type", "Sequence"}, {key, std::move(parts)}};
}

json::object split(const char* pattern) {
  return {{"type", "Split"},
          {"pattern", {{"Regex", pattern}}},
          {"behavior", "Isolated"},
          {"invert", false}};
}

json::object replace(const char* from, const char* to) {
  return {{"type", "Replace"}, {"pattern", {{"String", from}}}, {"content", to}};
}

class TokenizerWriter {
 public:
  TokenizerWriter(const Gguf& contents, const std::string& file)
      : metadata_(contents, file),
        tokens_(metadata_.get<std::vector<std::string_view>>("tokenizer.ggml.tokens")) {
    if (metadata_.has("tokenizer.ggml.token_type")) {
      types_ = metadata_.get<std::vector<int64_t>>("tokenizer.ggml.token_type");
      if (types_.size() != tokens_.size())
        metadata_.refuse("tokenizer.ggml.token_type", fmt::format("has {} entries for {} tokens",
                                                                  types_.size(), tokens_.size()));
    } else {
      types_.assign(tokens_.size(), kNormal);
    }
    const auto embedding =
        std::ranges::find(contents.tensors, "token_embd.weight", &GgufTensor::name);
    if (embedding == contents.tensors.end()) return;
    if (static_cast<int64_t>(tokens_.size()) > embedding->num_rows())
      metadata_.refuse("tokenizer.ggml.tokens",
                       fmt::format("has {} entries for the {} rows of 'token_embd.weight'",
                                   tokens_.size(), embedding->num_rows()));
  }

  GgufTokenizer write() {
    out_ = {{"version", "1.0"}, {"truncation", nullptr}, {"padding", nullptr}};
    out_["added_tokens"] = added_tokens();
    const auto model = metadata_.get<std::string_view>("tokenizer.ggml.model");
    if (model == "gpt2") {
      write_byte_level();
    } else if (model == "llama") {
      write_sentence_piece();
    } else {
      metadata_.refuse("tokenizer.ggml.model",
                       fmt::format("is '{}'; gpt2 and llama are supported", model));
    }
    return {std::move(out_), tokenizer_config(), generation_config()};
  }

 private:
  std::optional<int64_t> token_id(const std::string& name) const {
    const std::string key = fmt::format("tokenizer.ggml.{}_token_id", name);
    if (!metadata_.has(key)) return std::nullopt;
    const int64_t id = metadata_.get<int64_t>(key);
    if (id < 0 || id >= static_cast<int64_t>(tokens_.size()))
      metadata_.refuse(key, fmt::format("is {}, there are {} tokens", id, tokens_.size()));
    return id;
  }
  json::string_view token(int64_t id) const { return {tokens_[id].data(), tokens_[id].size()}; }

  json::array added_tokens() const {
    json::array added;
    for (size_t id = 0; id < tokens_.size(); ++id) {
      const int64_t type = types_[id];
      if (type != kControl && type != kUserDefined && type != kUnknown) continue;
      added.push_back(json::object{{"id", id},
                                   {"content", token(static_cast<int64_t>(id))},
                                   {"single_word", false},
                                   {"lstrip", false},
                                   {"rstrip", false},
                                   {"normalized", false},
                                   {"special", type != kUserDefined}});
    }
    return added;
  }

  // By id; tokens that only fill up the embedding stay out.
  json::object vocabulary() const {
    json::object vocab;
    vocab.reserve(tokens_.size());
    for (size_t id = 0; id < tokens_.size(); ++id) {
      if (types_[id] == kUnused) continue;
      if (!vocab.emplace(token(static_cast<int64_t>(id)), id).second)
        metadata_.refuse("tokenizer.ggml.tokens", fmt::format("has '{}' twice", tokens_[id]));
    }
    return vocab;
  }

  json::object bpe(const json::array& merges, bool bytes, json::value unknown) const {
    return {{"type", "BPE"},
            {"dropout", nullptr},
            {"unk_token", std::move(unknown)},
            {"continuing_subword_prefix", nullptr},
            {"end_of_word_suffix", nullptr},
            {"fuse_unk", bytes},
            {"byte_fallback", bytes},
            {"ignore_merges", false},
            {"vocab", vocabulary()},
            {"merges", merges}};
  }

  json::array listed_merges() const {
    json::array merges;
    const char* key = "tokenizer.ggml.merges";
    const auto& list = metadata_.get<std::vector<std::string_view>>(key);
    merges.reserve(list.size());
    for (const std::string_view merge : list) {
      const size_t space = merge.find(' ', 1);
      if (space == merge.npos || merge.find(' ', space + 1) != merge.npos)
        metadata_.refuse(key, fmt::format("has '{}', expected two tokens", merge));
      merges.push_back(json::array{json::string_view(merge.substr(0, space)),
                                   json::string_view(merge.substr(space + 1))});
    }
    return merges;
  }

  // Files of before May 2024 do not name it; some architectures have one kind alone.
  std::string_view pre_tokenizer(const char* key) const {
    if (metadata_.has(key)) return metadata_.get<std::string_view>(key);
    const auto architecture = metadata_.get<std::string_view>("general.architecture");
    if (architecture == "qwen2" || architecture == "qwen3") return "qwen2";
    metadata_.refuse(key, fmt::format("is missing, and models of architecture '{}' have several; "
                                      "make the file anew with a newer converter",
                                      architecture));
  }

  void write_byte_level() {
    const char* key = "tokenizer.ggml.pre";
    const std::string_view pre = pre_tokenizer(key);
    const bool is_llama3 = pre == "llama-bpe" || pre == "llama3" || pre == "llama-v3";
    out_["normalizer"] = nullptr;
    if (pre == "gpt-2") {
      out_["pre_tokenizer"] = byte_level(false, true);
    } else if (pre == "smollm") {
      out_["pre_tokenizer"] = sequence(
          "pretokenizers",
          {json::object{{"type", "Digits"}, {"individual_digits", true}}, byte_level(false, true)});
    } else if (pre == "qwen2") {
      out_["normalizer"] = json::object{{"type", "NFC"}};
      out_["pre_tokenizer"] =
          sequence("pretokenizers", {split(kQwen2Pattern), byte_level(false, false)});
    } else if (is_llama3) {
      out_["pre_tokenizer"] =
          sequence("pretokenizers", {split(kLlama3Pattern), byte_level(false, false)});
    } else {
      const std::vector<std::string> known = {"gpt-2", "smollm", "qwen2", "llama-bpe"};
      metadata_.refuse(key,
                       fmt::format("is '{}', which is not supported; the nearest that is: "
                                   "'{}' (of {})",
                                   pre, nearest(std::string(pre), known), fmt::join(known, ", ")));
    }
    out_["post_processor"] = post_processor(is_llama3);
    out_["decoder"] = byte_level(true, true);
    json::object model = bpe(listed_merges(), false, nullptr);
    model["ignore_merges"] = is_llama3;
    out_["model"] = std::move(model);
  }

  // SentencePiece keeps scores, not merges: a token is merged of each pair of tokens that spells
  // it, those of a higher score first.
  json::array scored_merges() const {
    const auto& scores = metadata_.get<std::vector<double>>("tokenizer.ggml.scores");
    if (scores.size() != tokens_.size())
      metadata_.refuse("tokenizer.ggml.scores",
                       fmt::format("has {} entries for {} tokens", scores.size(), tokens_.size()));
    std::unordered_map<std::string_view, size_t> ids;
    for (size_t id = 0; id < tokens_.size(); ++id)
      if (types_[id] == kNormal || types_[id] == kUserDefined) ids.emplace(tokens_[id], id);
    struct Merge {
      size_t whole, left, right;
    };
    std::vector<Merge> merges;
    for (const auto& [text, whole] : ids) {
      // Longer texts are no words; this also bounds the work at a pass over the vocabulary.
      if (text.size() > 256) continue;
      for (size_t at = 1; at < text.size(); ++at) {
        const auto left = ids.find(text.substr(0, at)), right = ids.find(text.substr(at));
        if (left != ids.end() && right != ids.end())
          merges.push_back({whole, left->second, right->second});
      }
    }
    std::ranges::sort(merges, [&](const Merge& a, const Merge& b) {
      return std::tuple(-scores[a.whole], a.whole, a.left, a.right) <
             std::tuple(-scores[b.whole], b.whole, b.left, b.right);
    });
    json::array out;
    out.reserve(merges.size());
    for (const Merge& merge : merges)
      out.push_back(json::array{token(static_cast<int64_t>(merge.left)),
                                token(static_cast<int64_t>(merge.right))});
    return out;
  }

  void write_sentence_piece() {
    const bool prefix = metadata_.get_or("tokenizer.ggml.add_space_prefix", true);
    json::array normalizers;
    if (prefix) normalizers.push_back(json::object{{"type", "Prepend"}, {"prepend", kSpace}});
    normalizers.push_back(replace(" ", kSpace));
    out_["normalizer"] = sequence("normalizers", normalizers);
    out_["pre_tokenizer"] = nullptr;
    out_["post_processor"] = post_processor(true);
    json::array decoders{replace(kSpace, " "), json::object{{"type", "ByteFallback"}},
                         json::object{{"type", "Fuse"}}};
    if (prefix)
      decoders.push_back(
          json::object{{"type", "Strip"}, {"content", " "}, {"start", 1}, {"stop", 0}});
    out_["decoder"] = sequence("decoders", decoders);
    const std::optional<int64_t> unknown = token_id("unknown");
    out_["model"] =
        bpe(scored_merges(), true, unknown ? json::value(token(*unknown)) : json::value(nullptr));
  }

  bool adds_bos(bool usual) const {
    return metadata_.get_or("tokenizer.ggml.add_bos_token", usual) && token_id("bos").has_value();
  }

  // The beginning token before each sequence, where the file asks for it or its kind usually does.
  json::value post_processor(bool usual) {
    if (metadata_.get_or("tokenizer.ggml.add_eos_token", false))
      metadata_.refuse("tokenizer.ggml.add_eos_token", "is true, which is not supported");
    adds_bos_ = adds_bos(usual);
    if (!adds_bos_) return nullptr;
    const int64_t id = *token_id("bos");
    const auto bos = [&](int type) {
      return json::object{{"SpecialToken", {{"id", token(id)}, {"type_id", type}}}};
    };
    const auto text = [&](const char* name, int type) {
      return json::object{{"Sequence", {{"id", name}, {"type_id", type}}}};
    };
    json::object special;
    special[token(id)] = json::object{
        {"id", token(id)}, {"ids", json::array{id}}, {"tokens", json::array{token(id)}}};
    return json::object{{"type", "TemplateProcessing"},
                        {"single", json::array{bos(0), text("A", 0)}},
                        {"pair", json::array{bos(0), text("A", 0), bos(1), text("B", 1)}},
                        {"special_tokens", special}};
  }

  json::object tokenizer_config() const {
    json::object config{{"tokenizer_class", "PreTrainedTokenizerFast"},
                        {"add_prefix_space", false},
                        {"add_bos_token", adds_bos_}};
    for (const auto& [name, key] : {std::pair("bos", "bos_token"),
                                    {"eos", "eos_token"},
                                    {"padding", "pad_token"},
                                    {"unknown", "unk_token"}})
      if (const auto id = token_id(name)) config[key] = token(*id);
    config["clean_up_tokenization_spaces"] = false;
    const std::string architecture(metadata_.get<std::string_view>("general.architecture"));
    config["model_max_length"] = metadata_.get<int64_t>(architecture + ".context_length");
    const json::array templates = chat_templates();
    if (templates.size() == 1 && templates[0].at("name") == "default") {
      config["chat_template"] = templates[0].at("template");
    } else if (!templates.empty()) {
      config["chat_template"] = templates;
    }
    return config;
  }

  // The default one, and those with a name, "tool_use" for example, as {name, template}.
  json::array chat_templates() const {
    constexpr std::string_view kKey = "tokenizer.chat_template";
    json::array templates;
    for (const auto& [key, value] : metadata_.entries()) {
      if (!key.starts_with(kKey) || (key.size() > kKey.size() && key[kKey.size()] != '.')) continue;
      const std::string_view name =
          key.size() == kKey.size() ? "default" : std::string_view(key).substr(kKey.size() + 1);
      templates.push_back(
          json::object{{"name", json::string_view(name)},
                       {"template", json::string_view(metadata_.get<std::string_view>(key))}});
    }
    return templates;
  }

  json::object generation_config() const {
    json::object config;
    for (const auto& [name, key] : {std::pair("bos", "bos_token_id"), {"padding", "pad_token_id"}})
      if (const auto id = token_id(name)) config[key] = *id;
    for (const char* name : {"eos", "eot", "eom"}) token_id(name);  // are tokens
    const std::vector<int64_t> ends = metadata_.end_tokens();
    if (ends.size() == 1) config["eos_token_id"] = ends.front();
    if (ends.size() > 1) config["eos_token_id"] = json::value_from(ends);
    return config;
  }

  GgufMetadata metadata_;
  const std::vector<std::string_view>& tokens_;
  std::vector<int64_t> types_;
  bool adds_bos_ = false;
  json::object out_;
};

}  // namespace

GgufTokenizer gguf_tokenizer(const Gguf& contents, const std::string& file) {
  return TokenizerWriter(contents, file).write();
}

}  // namespace halo
