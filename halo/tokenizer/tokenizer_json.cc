// "truncation" and "padding" are not read: Transformers sets both anew at every call, so files
// carry what the last call left there. A post-processor of type ByteLevel changes offsets only.
#include "halo/tokenizer/tokenizer_json.h"

#include <unordered_set>
#include <utility>

#include "halo/base/check.h"
#include "halo/base/json.h"
#include "halo/tokenizer/pieces.h"

namespace halo {
namespace {

// Bounds the table by id that untrusted files make us allocate.
constexpr int64_t kMaxIds = int64_t{1} << 22;

// object[key], or nullptr where it is absent or null.
const json::value* find(const json::object& object, std::string_view key) {
  const json::value* value = object.if_contains(key);
  return value && !value->is_null() ? value : nullptr;
}

const json::object& object_at(const json::object& object, std::string_view key,
                              const std::string& file) {
  const json::value* value = find(object, key);
  if (!value || !value->is_object()) throw_error("{}: '{}' must be an object", file, key);
  return value->get_object();
}

const json::array& array_at(const json::object& object, std::string_view key,
                            const std::string& file) {
  const json::value* value = find(object, key);
  if (!value || !value->is_array()) throw_error("{}: '{}' must be an array", file, key);
  return value->get_array();
}

// object[key] must be absent, null, or equal to one of `allowed`.
void check_default(const json::object& object, std::string_view owner, std::string_view key,
                   const json::value& allowed, const std::string& file) {
  const json::value* value = find(object, key);
  if (value && *value != allowed) {
    throw_error("{}: {} with '{}' = {} is not supported; only {}", file, owner, key,
                json::serialize(*value), json::serialize(allowed));
  }
}

int32_t checked_id(const json::value& value, std::string_view token, const std::string& file) {
  if (!value.is_int64() || value.get_int64() < 0 || value.get_int64() >= kMaxIds) {
    throw_error("{}: token '{}' has id {}; expected an integer from 0 to {}", file, token,
                json::serialize(value), kMaxIds - 1);
  }
  return static_cast<int32_t>(value.get_int64());
}

std::pair<std::string, std::string> merge_parts(const json::value& merge, size_t rank,
                                                const std::string& file) {
  if (const auto* text = merge.if_string()) {
    const size_t space = text->find(' ');
    if (space != text->npos && text->find(' ', space + 1) == text->npos)
      return {std::string(text->subview(0, space)), std::string(text->subview(space + 1))};
  } else if (const auto* pair = merge.if_array()) {
    if (pair->size() == 2 && (*pair)[0].is_string() && (*pair)[1].is_string())
      return {std::string((*pair)[0].get_string()), std::string((*pair)[1].get_string())};
  }
  throw_error("{}: merge {} is {}; expected \"a b\" or [\"a\", \"b\"]", file, rank,
              json::serialize(merge));
}

void read_model(const json::object& model, const std::string& file, TokenizerFile& out) {
  const auto type = json_get<std::string>(model, "type", file);
  if (type != "BPE") throw_error("{}: model '{}' is not supported; only BPE", file, type);
  check_default(model, "a BPE model", "dropout", 0.0, file);
  check_default(model, "a BPE model", "continuing_subword_prefix", "", file);
  check_default(model, "a BPE model", "end_of_word_suffix", "", file);
  check_default(model, "a BPE model", "byte_fallback", false, file);
  check_default(model, "a BPE model", "unk_token", nullptr, file);
  out.ignore_merges = json_get_or(model, "ignore_merges", false, file);

  const json::object& vocab = object_at(model, "vocab", file);
  out.vocab.reserve(vocab.size());
  for (const auto& [token, id] : vocab) out.vocab.emplace(token, checked_id(id, token, file));

  const json::array& merges = array_at(model, "merges", file);
  out.merges.reserve(merges.size());
  for (size_t rank = 0; rank < merges.size(); ++rank) {
    const auto [left, right] = merge_parts(merges[rank], rank, file);
    const auto id_of = [&](const std::string& token) {
      const auto found = out.vocab.find(token);
      if (found == out.vocab.end())
        throw_error("{}: merge {} needs '{}', which is not in the vocabulary", file, rank, token);
      return found->second;
    };
    out.merges.push_back({id_of(left), id_of(right), id_of(left + right)});
  }
}

void read_normalizer(const json::object& root, const std::string& file, TokenizerFile& out) {
  if (!find(root, "normalizer")) return;
  const auto type = json_get<std::string>(object_at(root, "normalizer", file), "type", file);
  if (type != "NFC") throw_error("{}: normalizer '{}' is not supported; NFC or none", file, type);
  out.nfc = true;
}

void check_split(const json::object& split, const std::string& file) {
  const json::object& pattern = object_at(split, "pattern", file);
  const json::value* regex = find(pattern, "Regex");
  if (!regex || !regex->is_string() || regex->get_string() != kQwen2Pattern) {
    throw_error("{}: pre-tokenizer Split with pattern {} is not supported; only that of Qwen2",
                file, json::serialize(pattern));
  }
  check_default(split, "pre-tokenizer Split", "behavior", "Isolated", file);
  check_default(split, "pre-tokenizer Split", "invert", false, file);
}

void check_pre_tokenizer(const json::object& root, const std::string& file) {
  const json::object& outer = object_at(root, "pre_tokenizer", file);
  const auto type = json_get<std::string>(outer, "type", file);
  if (type != "Sequence") {
    throw_error("{}: pre-tokenizer '{}' is not supported; only a Sequence of Split and ByteLevel",
                file, type);
  }
  const json::array& parts = array_at(outer, "pretokenizers", file);
  std::string types;
  for (const json::value& part : parts) {
    if (!part.is_object()) throw_error("{}: 'pretokenizers' must hold objects", file);
    types += (types.empty() ? "" : ", ") + json_get<std::string>(part.get_object(), "type", file);
  }
  if (types != "Split, ByteLevel") {
    throw_error("{}: pre-tokenizer Sequence of [{}] is not supported; only [Split, ByteLevel]",
                file, types);
  }
  check_split(parts[0].get_object(), file);
  const json::object& bytes = parts[1].get_object();
  const char* owner = "pre-tokenizer ByteLevel";
  // Absent means true for both.
  if (json_get_or(bytes, "use_regex", true, file))
    throw_error("{}: {} with 'use_regex' = true is not supported beside Split", file, owner);
  if (json_get_or(bytes, "add_prefix_space", true, file))
    throw_error("{}: {} with 'add_prefix_space' = true is not supported", file, owner);
}

void check_byte_level(const json::object& root, std::string_view key, bool required,
                      const std::string& file) {
  if (!required && !find(root, key)) return;
  const auto type = json_get<std::string>(object_at(root, key, file), "type", file);
  if (type != "ByteLevel")
    throw_error("{}: {} '{}' is not supported; only ByteLevel", file, key, type);
}

void read_added_tokens(const json::object& root, const std::string& file, TokenizerFile& out) {
  if (!find(root, "added_tokens")) return;
  for (const json::value& value : array_at(root, "added_tokens", file)) {
    if (!value.is_object()) throw_error("{}: 'added_tokens' must hold objects", file);
    const json::object& token = value.get_object();
    const auto text = json_get<std::string>(token, "content", file);
    if (text.empty()) throw_error("{}: an added token has no content", file);
    const std::string owner = fmt::format("added token '{}'", text);
    for (const char* flag : {"lstrip", "rstrip", "single_word"})
      check_default(token, owner, flag, false, file);
    const bool special = json_get_or(token, "special", false, file);
    const bool normalized = json_get_or(token, "normalized", !special, file);
    const json::value* id = find(token, "id");
    if (!id) throw_error("{}: {} has no id", file, owner);
    out.added_tokens.push_back({text, checked_id(*id, text, file), special, normalized});
  }
}

// One token an id, one id a token.
void check_ids(const TokenizerFile& tokenizer, const std::string& file) {
  std::unordered_set<int32_t> ids;
  for (const auto& [token, id] : tokenizer.vocab) {
    if (!ids.insert(id).second) throw_error("{}: two tokens have id {}", file, id);
  }
  std::unordered_set<std::string> texts;
  for (const AddedToken& token : tokenizer.added_tokens) {
    if (!texts.insert(token.text).second)
      throw_error("{}: added token '{}' is there twice", file, token.text);
    const auto known = tokenizer.vocab.find(token.text);
    const bool in_vocab = known != tokenizer.vocab.end();
    if (in_vocab ? known->second != token.id : !ids.insert(token.id).second) {
      throw_error("{}: added token '{}' has id {}, which the vocabulary contradicts", file,
                  token.text, token.id);
    }
  }
}

}  // namespace

TokenizerFile parse_tokenizer_json(std::string_view text, const std::string& file) {
  const json::value value = parse_json(text, file);
  if (!value.is_object()) throw_error("{}: not a tokenizer: expected an object", file);
  const json::object& root = value.get_object();
  TokenizerFile out;
  read_model(object_at(root, "model", file), file, out);
  read_normalizer(root, file, out);
  check_pre_tokenizer(root, file);
  check_byte_level(root, "post_processor", false, file);
  check_byte_level(root, "decoder", true, file);
  read_added_tokens(root, file, out);
  check_ids(out, file);
  return out;
}

}  // namespace halo
