#include "halo/tokenizer/components_json.h"

#include <algorithm>
#include <utility>

#include "halo/base/check.h"
#include "halo/tokenizer/json_fields.h"

namespace halo::tokenizer_json {
namespace {

std::string type_of(const json::object& component, const std::string& file) {
  return json_get<std::string>(component, "type", file);
}

// {"String": "x"} or {"Regex": "x"}.
std::variant<std::string, Regex> read_pattern(const json::object& owner, const std::string& file) {
  const json::object& pattern = object_at(owner, "pattern", file);
  if (find(pattern, "Regex")) return Regex(json_get<std::string>(pattern, "Regex", file), file);
  if (find(pattern, "String")) return step_text(pattern, "String", file);
  throw_error("{}: pattern {} is not supported; String or Regex", file, json::serialize(pattern));
}

// A text that may be empty.
std::string content_of(const json::object& owner, const std::string& file) {
  auto text = json_get<std::string>(owner, "content", file);
  if (text.size() > kMaxStepText)
    throw_error("{}: 'content' has {} bytes; at most {}", file, text.size(), kMaxStepText);
  return text;
}

uint64_t count_at(const json::object& owner, std::string_view key, const std::string& file) {
  const auto count = json_get<int64_t>(owner, std::string(key), file);
  if (count < 0) throw_error("{}: '{}' is {}; expected a count", file, key, count);
  return static_cast<uint64_t>(count);
}

Normalizer::Step read_normalizer_step(const json::object& step, const std::string& file) {
  const std::string type = type_of(step, file);
  if (type == "NFC") return NormalForm::kNfc;
  if (type == "NFD") return NormalForm::kNfd;
  if (type == "NFKC") return NormalForm::kNfkc;
  if (type == "NFKD") return NormalForm::kNfkd;
  if (type == "Lowercase") return Lowercase{};
  if (type == "Prepend") return Prepend{step_text(step, "prepend", file)};
  if (type == "Replace") return Replace{read_pattern(step, file), content_of(step, file)};
  if (type == "Strip") {
    return StripSpaces{json_get<bool>(step, "strip_left", file),
                       json_get<bool>(step, "strip_right", file)};
  }
  throw_error("{}: normalizer '{}' is not supported", file, type);
}

SplitBehavior read_behavior(const json::object& split, const std::string& file) {
  const auto name = json_get<std::string>(split, "behavior", file);
  if (name == "Isolated") return SplitBehavior::kIsolated;
  if (name == "Removed") return SplitBehavior::kRemoved;
  if (name == "MergedWithPrevious") return SplitBehavior::kMergedWithPrevious;
  if (name == "MergedWithNext") return SplitBehavior::kMergedWithNext;
  if (name == "Contiguous") return SplitBehavior::kContiguous;
  throw_error("{}: pre-tokenizer Split with behavior '{}' is not supported", file, name);
}

Split read_split(const json::object& step, const std::string& file) {
  const SplitBehavior behavior = read_behavior(step, file);
  const bool invert = json_get<bool>(step, "invert", file);
  const json::value* regex = find(object_at(step, "pattern", file), "Regex");
  if (const json::string* text = regex ? regex->if_string() : nullptr) {
    if (const auto known = known_pattern(*text)) return {*known, behavior, invert};
  }
  auto pattern = read_pattern(step, file);
  if (auto* literal = std::get_if<std::string>(&pattern))
    return {std::move(*literal), behavior, invert};
  return {std::get<Regex>(std::move(pattern)), behavior, invert};
}

// Older files say add_prefix_space, newer ones prepend_scheme.
Metaspace::PrependScheme read_prepend_scheme(const json::object& step, const std::string& file) {
  const auto name = json_get_or<std::string>(step, "prepend_scheme", "always", file);
  if (find(step, "add_prefix_space") && !json_get<bool>(step, "add_prefix_space", file)) {
    if (find(step, "prepend_scheme") && name != "never")
      throw_error("{}: Metaspace: add_prefix_space is false, but prepend_scheme '{}'", file, name);
    return Metaspace::PrependScheme::kNever;
  }
  if (name == "always") return Metaspace::PrependScheme::kAlways;
  if (name == "first") return Metaspace::PrependScheme::kFirst;
  if (name == "never") return Metaspace::PrependScheme::kNever;
  throw_error("{}: Metaspace with prepend_scheme '{}' is not supported", file, name);
}

PreTokenizer::Step read_pre_tokenizer_step(const json::object& step, const std::string& file) {
  const std::string type = type_of(step, file);
  if (type == "Split") return read_split(step, file);
  if (type == "Digits") return Digits{json_get<bool>(step, "individual_digits", file)};
  if (type == "Metaspace") {
    return Metaspace{character_at(step, "replacement", file), read_prepend_scheme(step, file),
                     json_get_or(step, "split", true, file)};
  }
  if (type == "ByteLevel") {
    return ByteLevel{json_get_or(step, "add_prefix_space", true, file),
                     json_get_or(step, "use_regex", true, file)};
  }
  throw_error("{}: pre-tokenizer '{}' is not supported", file, type);
}

// Reads the "single" template: special tokens before and after one sequence A.
void read_template(const json::object& processor, const std::string& file, TokenizerFile& out) {
  const auto ids_of = [&](const std::string& name) {
    const json::object& token = object_at(object_at(processor, "special_tokens", file), name, file);
    std::vector<int32_t> ids;
    for (const json::value& value : array_at(token, "ids", file)) {
      const int64_t id = value.is_int64() ? value.get_int64() : -1;
      const bool in_vocab =
          std::ranges::any_of(out.model.vocab, [id](const auto& t) { return t.second == id; });
      if (!in_vocab &&
          std::ranges::none_of(out.added_tokens, [id](const auto& t) { return t.id == id; })) {
        throw_error("{}: TemplateProcessing: '{}' has id {}, which no token has", file, name,
                    json::serialize(value));
      }
      ids.push_back(static_cast<int32_t>(id));
    }
    return ids;
  };
  const json::array& pieces = array_at(processor, "single", file);
  if (pieces.size() > kMaxSteps)
    throw_error("{}: TemplateProcessing has more than {} pieces", file, kMaxSteps);
  int sequences = 0;
  for (const json::value& value : pieces) {
    const json::object* piece = value.if_object();
    if (piece && find(*piece, "SpecialToken")) {
      const json::object& token = object_at(*piece, "SpecialToken", file);
      const std::vector<int32_t> ids = ids_of(json_get<std::string>(token, "id", file));
      auto& side = sequences == 0 ? out.prefix : out.suffix;
      side.insert(side.end(), ids.begin(), ids.end());
    } else if (piece && find(*piece, "Sequence") &&
               json_get<std::string>(object_at(*piece, "Sequence", file), "id", file) == "A") {
      ++sequences;
    } else {
      throw_error("{}: TemplateProcessing: piece {} of 'single' is not supported", file,
                  json::serialize(value));
    }
  }
  if (sequences != 1)
    throw_error("{}: TemplateProcessing: 'single' has {} sequences; expected one", file, sequences);
}

}  // namespace

Normalizer read_normalizer(const json::object& root, const std::string& file) {
  if (!find(root, "normalizer")) return {};
  std::vector<Normalizer::Step> steps;
  for (const auto* step : flatten(object_at(root, "normalizer", file), "normalizers", file))
    steps.push_back(read_normalizer_step(*step, file));
  return Normalizer(std::move(steps));
}

void read_pre_tokenizer(const json::object& root, const std::string& file, TokenizerFile& out) {
  if (!find(root, "pre_tokenizer")) return;
  std::vector<PreTokenizer::Step> steps;
  for (const auto* step : flatten(object_at(root, "pre_tokenizer", file), "pretokenizers", file)) {
    if (out.model.byte_level)
      throw_error("{}: pre-tokenizer '{}' after ByteLevel is not supported", file,
                  type_of(*step, file));
    steps.push_back(read_pre_tokenizer_step(*step, file));
    out.model.byte_level = std::holds_alternative<ByteLevel>(steps.back());
  }
  out.pre_tokenizer = PreTokenizer(std::move(steps));
}

void read_post_processor(const json::object& root, const std::string& file, TokenizerFile& out) {
  if (!find(root, "post_processor")) return;
  bool has_template = false;
  for (const auto* step : flatten(object_at(root, "post_processor", file), "processors", file)) {
    const std::string type = type_of(*step, file);
    if (type == "ByteLevel") continue;  // changes offsets only
    if (type != "TemplateProcessing" || std::exchange(has_template, true)) {
      throw_error("{}: post-processor '{}' is not supported; ByteLevel and one TemplateProcessing",
                  file, type);
    }
    read_template(*step, file, out);
  }
}

DecoderSteps read_decoder(const json::object& root, const std::string& file) {
  DecoderSteps out;
  bool fused = false;
  for (const auto* step : flatten(object_at(root, "decoder", file), "decoders", file)) {
    const std::string type = type_of(*step, file);
    if (type == "ByteLevel" && out.steps.empty() && !out.byte_level) {
      out.byte_level = fused = true;
    } else if (type == "ByteFallback" && !fused) {
      out.steps.emplace_back(ByteFallbackStep{});
    } else if (type == "Fuse") {
      out.steps.emplace_back(FuseStep{});
      fused = true;
    } else if (type == "Strip") {
      out.steps.emplace_back(StripStep{character_at(*step, "content", file),
                                       count_at(*step, "start", file),
                                       count_at(*step, "stop", file)});
    } else if (type == "Replace") {
      const json::object& pattern = object_at(*step, "pattern", file);
      if (!find(pattern, "String")) {
        throw_error("{}: decoder Replace with pattern {} is not supported; only String", file,
                    json::serialize(pattern));
      }
      out.steps.emplace_back(
          ReplaceStep{step_text(pattern, "String", file), content_of(*step, file)});
    } else if (type == "Metaspace") {
      out.steps.emplace_back(
          MetaspaceStep{character_at(*step, "replacement", file),
                        read_prepend_scheme(*step, file) != Metaspace::PrependScheme::kNever});
    } else if (type == "ByteLevel" || type == "ByteFallback") {
      throw_error("{}: decoder '{}' is supported only before all that fuse tokens", file, type);
    } else {
      throw_error("{}: decoder '{}' is not supported", file, type);
    }
  }
  return out;
}

}  // namespace halo::tokenizer_json
