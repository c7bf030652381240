#include "halo/tokenizer/special_tokens.h"

#include <algorithm>
#include <array>
#include <optional>
#include <string>
#include <string_view>

#include "halo/base/check.h"
#include "halo/base/json.h"

namespace halo {
namespace {

namespace fs = std::filesystem;

constexpr std::array kUsual = {"bos_token", "eos_token", "unk_token", "sep_token",
                               "pad_token", "cls_token", "mask_token"};
constexpr const char* kMore = "additional_special_tokens";

bool is_usual(std::string_view name) {
  return std::ranges::find(kUsual, name) != kUsual.end();
}

// The object in a file; none where the file is not there.
std::optional<json::object> read_object(const fs::path& path) {
  if (!fs::exists(path)) return std::nullopt;
  json::value value = read_json(path);
  if (!value.is_object()) throw_error("{}: expected a JSON object", path.string());
  return std::move(value.as_object());
}

// A text, or an object with it as `content`; none for other values.
std::optional<std::string> token_text(const json::value& token) {
  const json::value* text = token.is_object() ? token.as_object().if_contains("content") : &token;
  if (text == nullptr || !text->is_string()) return std::nullopt;
  return std::string(text->as_string());
}

// Gathers tokens from one file after the other, the later over the earlier. Null stays in it, for
// it forbids the class's default.
class Tokens {
 public:
  void add(const json::object& object, const std::string& file) {
    for (const auto& [key, value] : object) {
      const std::string name(key);
      if (name == kMore) {
        add_more(value, file);
      } else if (name == "extra_special_tokens" || name == "model_specific_special_tokens") {
        if (value.is_object()) add_named(value.as_object(), file);
      } else if (is_usual(name)) {
        set(name, value, file);
      } else if (name.ends_with("_token") && token_text(value)) {
        set(name, value, file);
      }
    }
  }
  void add_default(const std::string& name, const char* text) {
    tokens_.emplace(name, json::string_view(text));
  }

  json::object take() {
    json::object out;
    for (const auto& [name, token] : tokens_)
      if (!token.is_null()) out.emplace(name, token);
    if (!more_.empty()) out[kMore] = std::move(more_);
    return out;
  }

 private:
  void set(const std::string& name, const json::value& token, const std::string& file) {
    const auto text = token_text(token);
    if (!text && !token.is_null())
      throw_error("{}: key '{}' must be a token, not {}", file, name, json::serialize(token));
    tokens_[name] = text ? json::value(*text) : json::value(nullptr);
  }
  void add_named(const json::object& named, const std::string& file) {
    for (const auto& [name, token] : named) set(std::string(name), token, file);
  }
  void add_more(const json::value& list, const std::string& file) {
    if (!list.is_array()) return;  // null
    for (const json::value& token : list.as_array()) {
      const auto text = token_text(token);
      if (!text)
        throw_error("{}: key '{}' has {}, which is no token", file, kMore, json::serialize(token));
      const json::value value(*text);
      if (std::ranges::find(more_, value) == more_.end()) more_.push_back(value);
    }
  }

  json::object tokens_;
  json::array more_;
};

// Whether tokenizer.json works on bytes: the class of such files named "Llama..." is another.
bool is_byte_level(const fs::path& model) {
  const auto tokenizer = read_object(model / "tokenizer.json");
  if (!tokenizer) return false;
  const auto has_step = [](const auto& self, const json::value& value) -> bool {
    if (value.is_array())
      return std::ranges::any_of(value.as_array(), [&](const auto& v) { return self(self, v); });
    if (!value.is_object()) return false;
    const json::value* type = value.as_object().if_contains("type");
    return (type != nullptr && *type == "ByteLevel") ||
           std::ranges::any_of(value.as_object(),
                               [&](const auto& member) { return self(self, member.value()); });
  };
  for (const char* part : {"pre_tokenizer", "decoder"}) {
    const json::value* steps = tokenizer->if_contains(part);
    if (steps != nullptr && has_step(has_step, *steps)) return true;
  }
  return false;
}

// The class in tokenizer_config.json, without "Fast"; that of Qwen's models where there is none.
std::string class_of(const json::object& config, const fs::path& model) {
  const json::value* named = config.if_contains("tokenizer_class");
  if (named != nullptr && named->is_string()) {
    const std::string_view name = named->as_string();
    return std::string(name.ends_with("Fast") ? name.substr(0, name.size() - 4) : name);
  }
  const auto about = read_object(model / "config.json");
  const json::value* type = about ? about->if_contains("model_type") : nullptr;
  return type && (*type == "qwen2" || *type == "qwen3") ? "Qwen2Tokenizer" : "";
}

void add_defaults(const std::string& name, const fs::path& model, Tokens& tokens) {
  const char* end_of_text = "<|endoftext|>";
  if (name == "Qwen2Tokenizer") {
    for (const char* token : {"eos_token", "pad_token", "unk_token"})
      tokens.add_default(token, end_of_text);
  } else if (name == "GPT2Tokenizer" || name == "GPTNeoXTokenizer") {
    for (const char* token : {"bos_token", "eos_token", "unk_token"})
      tokens.add_default(token, end_of_text);
  } else if (name == "CodeLlamaTokenizer" || (name == "LlamaTokenizer" && !is_byte_level(model))) {
    tokens.add_default("bos_token", "<s>");
    tokens.add_default("eos_token", "</s>");
    tokens.add_default("unk_token", "<unk>");
  }
}

}  // namespace

json::object special_tokens(const fs::path& model) {
  const fs::path config_file = model / "tokenizer_config.json";
  const fs::path map_file = model / "special_tokens_map.json";
  const json::object config = read_object(config_file).value_or(json::object());
  Tokens tokens;
  tokens.add(config, config_file.string());
  if (!config.contains("added_tokens_decoder")) {
    if (const auto map = read_object(map_file)) tokens.add(*map, map_file.string());
  }
  add_defaults(class_of(config, model), model, tokens);
  return tokens.take();
}

}  // namespace halo
