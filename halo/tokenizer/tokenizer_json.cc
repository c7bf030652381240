// "truncation" and "padding" are not read: Transformers sets both anew at every call, so files
// carry what the last call left there.
#include "halo/tokenizer/tokenizer_json.h"

#include <unordered_map>
#include <unordered_set>
#include <utility>

#include "halo/base/check.h"
#include "halo/base/json.h"
#include "halo/tokenizer/components_json.h"
#include "halo/tokenizer/json_fields.h"

namespace halo {
namespace {

using namespace tokenizer_json;

// Bounds the table by id that untrusted files make us allocate.
constexpr int64_t kMaxIds = int64_t{1} << 22;
constexpr size_t kMaxAddedTokenBytes = 1'024;

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

BpeModel read_model(const json::object& model, const std::string& file) {
  // Files of before 2020 have no type; then the keys tell.
  const auto type =
      json_get_or<std::string>(model, "type", find(model, "merges") ? "BPE" : "", file);
  if (type != "BPE") throw_error("{}: model '{}' is not supported; only BPE", file, type);
  check_default(model, "a BPE model", "dropout", 0.0, file);
  check_default(model, "a BPE model", "continuing_subword_prefix", "", file);
  check_default(model, "a BPE model", "end_of_word_suffix", "", file);
  BpeModel out;
  out.byte_fallback = json_get_or(model, "byte_fallback", false, file);
  out.fuse_unknown = json_get_or(model, "fuse_unk", false, file);
  out.ignore_merges = json_get_or(model, "ignore_merges", false, file);

  const json::object& vocab = object_at(model, "vocab", file);
  out.vocab.reserve(vocab.size());
  for (const auto& [token, id] : vocab) out.vocab.emplace(token, checked_id(id, token, file));
  const auto id_of = [&](const std::string& token, const std::string& owner) {
    const auto found = out.vocab.find(token);
    if (found == out.vocab.end())
      throw_error("{}: {} needs '{}', which is not in the vocabulary", file, owner, token);
    return found->second;
  };
  if (find(model, "unk_token"))
    out.unknown = id_of(json_get<std::string>(model, "unk_token", file), "unk_token");

  const json::array& merges = array_at(model, "merges", file);
  out.merges.reserve(merges.size());
  for (size_t rank = 0; rank < merges.size(); ++rank) {
    const auto [left, right] = merge_parts(merges[rank], rank, file);
    const std::string owner = fmt::format("merge {}", rank);
    out.merges.push_back({id_of(left, owner), id_of(right, owner), id_of(left + right, owner)});
  }
  return out;
}

std::vector<AddedToken> read_added_tokens(const json::object& root, const std::string& file) {
  std::vector<AddedToken> out;
  std::unordered_map<std::string, AddedToken> by_text;
  if (!find(root, "added_tokens")) return out;
  for (const json::value& value : array_at(root, "added_tokens", file)) {
    if (!value.is_object()) throw_error("{}: 'added_tokens' must hold objects", file);
    const json::object& token = value.get_object();
    const auto text = json_get<std::string>(token, "content", file);
    if (text.empty()) throw_error("{}: an added token has no content", file);
    if (text.size() > kMaxAddedTokenBytes) {
      throw_error("{}: an added token has {} bytes; at most {}", file, text.size(),
                  kMaxAddedTokenBytes);
    }
    const json::value* id = find(token, "id");
    if (!id) throw_error("{}: added token '{}' has no id", file, text);
    const bool special = json_get_or(token, "special", false, file);
    const AddedToken added{.text = text,
                           .id = checked_id(*id, text, file),
                           .special = special,
                           .normalized = json_get_or(token, "normalized", !special, file),
                           .single_word = json_get_or(token, "single_word", false, file),
                           .lstrip = json_get_or(token, "lstrip", false, file),
                           .rstrip = json_get_or(token, "rstrip", false, file)};
    // Some writers append what is there already.
    const auto [known, is_new] = by_text.emplace(text, added);
    if (is_new) {
      out.push_back(added);
    } else if (known->second != added) {
      throw_error("{}: added token '{}' is there twice, and not the same", file, text);
    }
  }
  return out;
}

// One token an id, one id a token.
void check_ids(const TokenizerFile& tokenizer, const std::string& file) {
  const StringMap<int32_t>& vocab = tokenizer.model.vocab;
  std::unordered_set<int32_t> ids;
  for (const auto& [token, id] : vocab) {
    if (!ids.insert(id).second) throw_error("{}: two tokens have id {}", file, id);
  }
  for (const AddedToken& token : tokenizer.added_tokens) {
    const auto known = vocab.find(token.text);
    const bool in_vocab = known != vocab.end();
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
  out.model = read_model(object_at(root, "model", file), file);
  out.added_tokens = read_added_tokens(root, file);
  check_ids(out, file);
  out.normalizer = read_normalizer(root, file);
  read_pre_tokenizer(root, file, out);
  read_post_processor(root, file, out);
  out.decoder = read_decoder(root, file);
  return out;
}

}  // namespace halo
