// Reading and writing config.json. Everything that would change what the model computes is either
// understood or refused by name; the rest is carried along.
#include "halo/formats/model_config.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <set>
#include <utility>

#include "halo/base/check.h"
#include "halo/base/fields.h"

namespace halo {
namespace {

// Limits under which no count of parameters or bytes overflows 63 bits.
constexpr int64_t kMaxSize = 1 << 22;  // of anything that sizes a tensor
constexpr int64_t kMaxLayers = 1 << 12;
constexpr int64_t kMaxPosition = int64_t{1} << 40;
constexpr int64_t kDefaultHypeA = 362;
constexpr const char* kQwen3 = "qwen3";
constexpr const char* kHypenet = "hypenet";

const char* architecture_of(bool is_hypenet) {
  return is_hypenet ? "HypeNetForCausalLM" : "Qwen3ForCausalLM";
}

const std::vector<std::pair<std::string, LightningScale>> kLightningScales = {
    {"1/sqrt(d)", LightningScale::kInverseSqrtD},
    {"1/d", LightningScale::kInverseD},
    {"none", LightningScale::kOne}};

const std::vector<std::pair<std::string, MixerType>> kMixers = {
    {"attn", MixerType::kAttention},
    {"lightning-attn", MixerType::kLightning},
    {"lightning_attn", MixerType::kLightning}};

const std::vector<std::pair<std::string, RopeScaling::Type>> kRopeTypes = {
    {"default", RopeScaling::Type::kNone},
    {"linear", RopeScaling::Type::kLinear},
    {"llama3", RopeScaling::Type::kLlama3},
    {"yarn", RopeScaling::Type::kYarn}};

// The first name of a value: the one that is written.
template <class E>
const std::string& name_of(const std::vector<std::pair<std::string, E>>& names, E value) {
  return std::find_if(names.begin(), names.end(), [&](const auto& n) { return n.second == value; })
      ->first;
}

// Reads keys of one object and remembers which.
class KeyReader {
 public:
  KeyReader(const json::object& object, std::string file)
      : object_(object), file_(std::move(file)) {}

  // nullptr where the key is absent or null: Hugging Face writes null for "not set".
  const json::value* find(const std::string& key) {
    read_.insert(key);
    const json::value* value = object_.if_contains(key);
    return value == nullptr || value->is_null() ? nullptr : value;
  }
  bool is_present(const std::string& key) const { return object_.contains(key); }

  [[noreturn]] void refuse(const std::string& key, const std::string& what) const {
    const json::value* value = object_.if_contains(key);
    std::string shown = value == nullptr ? "missing" : json::serialize(*value);
    if (shown.size() > 60) shown = shown.substr(0, 60) + "...";
    throw_error("{}: key '{}' is {}: {}", file_, key, shown, what);
  }

  template <class T>
  T get(const std::string& key) {
    if (find(key) == nullptr) refuse(key, "a value is needed");
    return json_get<T>(object_, key, file_);
  }
  template <class T>
  T get_or(const std::string& key, T fallback) {
    return find(key) == nullptr ? std::move(fallback) : json_get<T>(object_, key, file_);
  }

  int64_t size(const std::string& key, int64_t limit = kMaxSize) {
    return check_size(key, get<int64_t>(key), limit);
  }
  int64_t size_or(const std::string& key, int64_t fallback, int64_t limit = kMaxSize) {
    return check_size(key, get_or<int64_t>(key, fallback), limit);
  }
  double positive_or(const std::string& key, double fallback) {
    const double value = get_or<double>(key, fallback);
    if (!(value > 0)) refuse(key, "expected a number above 0");
    return value;
  }

  // The value that a string names.
  template <class E>
  E one_of(const std::string& key, const std::string& text,
           const std::vector<std::pair<std::string, E>>& names) const {
    std::vector<std::string> known;
    for (const auto& [name, value] : names) {
      if (name == text) return value;
      known.push_back(name);
    }
    throw_error("{}: key '{}': '{}' is not supported; the nearest that is: '{}' (of {})", file_,
                key, text, nearest(text, known), fmt::join(known, ", "));
  }

  const std::set<std::string, std::less<>>& asked() const { return read_; }
  // What was never asked for, in file order.
  json::object unread() const {
    json::object rest;
    for (const auto& [key, value] : object_)
      if (!read_.contains(std::string_view(key.data(), key.size()))) rest.emplace(key, value);
    return rest;
  }

 private:
  int64_t check_size(const std::string& key, int64_t value, int64_t limit) const {
    if (value < 1 || value > limit) refuse(key, fmt::format("expected 1 to {}", limit));
    return value;
  }

  const json::object& object_;
  std::string file_;
  std::set<std::string, std::less<>> read_;
};

// Features that change the result and that this decoder does not have. Their keys stay in `other`.
void refuse_unsupported(const json::object& object, const std::string& file) {
  KeyReader keys(object, file);
  if (keys.get_or<std::string>("hidden_act", "silu") != "silu")
    keys.refuse("hidden_act", "the only activation supported is \"silu\"");
  for (const char* key : {"use_sliding_window", "mlp_bias", "lightning_use_short_conv"})
    if (keys.get_or<bool>(key, false)) keys.refuse(key, "not supported; expected false");
  for (const char* key : {"num_experts", "num_local_experts", "n_routed_experts"})
    if (keys.get_or<int64_t>(key, 0) != 0) keys.refuse(key, "mixture of experts is not supported");
  for (const char* key : {"lightning_rope_scaling", "quantization_config", "rope_parameters"})
    if (keys.find(key) != nullptr)
      keys.refuse(key,
                  "not supported; expected null (rotary settings belong to 'rope_theta' and "
                  "'rope_scaling', weights to unquantised safetensors)");
  if (keys.get_or<double>("partial_rotary_factor", 1) != 1)
    keys.refuse("partial_rotary_factor", "rotation of a part of the head is not supported");
  for (const json::value& type : keys.get_or<json::array>("layer_types", {}))
    if (type != "full_attention")
      keys.refuse("layer_types", "the only type supported is \"full_attention\"");
}

bool read_model_type(KeyReader& keys) {
  const std::string type = keys.get<std::string>("model_type");
  const bool is_hypenet =
      keys.one_of<bool>("model_type", type, {{kQwen3, false}, {kHypenet, true}});
  const std::string expected = architecture_of(is_hypenet);
  const json::array architectures = keys.get_or<json::array>("architectures", {});
  if (!architectures.empty() && architectures != json::array{expected})
    keys.refuse("architectures", fmt::format("expected [\"{}\"]", expected));
  return is_hypenet;
}

void check_head_dim(const KeyReader& keys, const std::string& key, int64_t head_dim,
                    int64_t num_heads) {
  if (head_dim % 2 != 0) keys.refuse(key, fmt::format("{} is not even", head_dim));
  if (head_dim * num_heads > kMaxSize)
    keys.refuse(key, fmt::format("{} heads of {} are more than {}", num_heads, head_dim, kMaxSize));
}

void read_sizes(KeyReader& keys, ModelConfig& config) {
  config.vocab_size = keys.size("vocab_size");
  config.hidden_size = keys.size("hidden_size");
  config.intermediate_size = keys.size("intermediate_size");
  config.num_layers = keys.size("num_hidden_layers", kMaxLayers);
  config.num_heads = keys.size("num_attention_heads");
  if (!keys.is_present("num_key_value_heads"))
    keys.refuse("num_key_value_heads", "a value is needed (null: as many as heads)");
  config.num_kv_heads = keys.size_or("num_key_value_heads", config.num_heads);
  if (config.num_heads % config.num_kv_heads != 0)
    keys.refuse("num_key_value_heads", fmt::format("does not divide {} heads", config.num_heads));
  if (!keys.is_present("head_dim")) {
    config.head_dim = 128;
  } else {
    config.head_dim = keys.size_or("head_dim", config.hidden_size / config.num_heads);
  }
  check_head_dim(keys, "head_dim", config.head_dim, config.num_heads);
  config.max_position_embeddings =
      keys.size_or("max_position_embeddings", config.is_hypenet ? 1048576 : 32768, kMaxPosition);
}

int64_t check_token(const KeyReader& keys, const std::string& key, const json::value& value,
                    int64_t vocab_size) {
  if (!value.is_int64() || value.get_int64() < 0 || value.get_int64() >= vocab_size)
    keys.refuse(key, fmt::format("expected tokens from 0 to {}", vocab_size - 1));
  return value.get_int64();
}

void read_tokens(KeyReader& keys, ModelConfig& config) {
  if (const json::value* bos = keys.find("bos_token_id"))
    config.bos_token_id = check_token(keys, "bos_token_id", *bos, config.vocab_size);
  if (const json::value* eos = keys.find("eos_token_id")) {
    const json::array list = eos->is_array() ? eos->get_array() : json::array{*eos};
    for (const json::value& token : list)
      config.eos_token_ids.push_back(check_token(keys, "eos_token_id", token, config.vocab_size));
  }
}

RopeScaling read_rope_scaling(KeyReader& outer, const std::string& file,
                              int64_t max_position_embeddings) {
  RopeScaling scaling;
  if (outer.find("rope_scaling") == nullptr) return scaling;
  const json::object object = outer.get<json::object>("rope_scaling");
  KeyReader keys(object, file + ": rope_scaling");
  // "type" is the older spelling of "rope_type".
  const bool is_old = keys.find("type") != nullptr && keys.find("rope_type") == nullptr;
  const std::string type_key = is_old ? "type" : "rope_type";
  scaling.type = keys.one_of(type_key, keys.get<std::string>(type_key), kRopeTypes);
  std::vector<std::string> known = {"rope_type", "type"};
  if (scaling.type != RopeScaling::Type::kNone) {
    known.push_back("factor");
    keys.get<double>("factor");
    scaling.factor = keys.positive_or("factor", 1);
  }
  if (scaling.type == RopeScaling::Type::kLlama3) {
    known.insert(known.end(),
                 {"low_freq_factor", "high_freq_factor", "original_max_position_embeddings"});
    keys.get<double>("low_freq_factor");
    keys.get<double>("high_freq_factor");
    scaling.low_freq_factor = keys.positive_or("low_freq_factor", 1);
    scaling.high_freq_factor = keys.positive_or("high_freq_factor", 4);
    if (scaling.high_freq_factor <= scaling.low_freq_factor)
      keys.refuse("high_freq_factor", "expected more than low_freq_factor");
    scaling.original_max_position_embeddings =
        keys.size("original_max_position_embeddings", kMaxPosition);
  }
  if (scaling.type == RopeScaling::Type::kYarn) {
    known.insert(known.end(), {"beta_fast", "beta_slow", "attention_factor",
                               "original_max_position_embeddings"});
    scaling.beta_fast = keys.positive_or("beta_fast", 32);
    scaling.beta_slow = keys.positive_or("beta_slow", 1);
    if (keys.find("attention_factor") != nullptr)
      scaling.attention_factor = keys.positive_or("attention_factor", 1);
    scaling.original_max_position_embeddings =
        keys.size_or("original_max_position_embeddings", max_position_embeddings, kMaxPosition);
  }
  for (const auto& [key, value] : keys.unread())
    keys.refuse(key,
                fmt::format("unknown for this rope_type; did you mean '{}'?", nearest(key, known)));
  return scaling;
}

LogitScale read_logit_scale(KeyReader& keys) {
  const std::string key = "attn_logits_scaling";
  const json::value* value = keys.find(key);
  if (value == nullptr) return {};
  if (value->is_number()) {
    const double constant = keys.positive_or(key, 1);
    return {.kind = LogitScale::Kind::kConstant, .constant = constant};
  }
  const std::string text = value->is_string() ? std::string(value->get_string()) : "";
  int64_t a = kDefaultHypeA;
  const bool has_number = text.starts_with("hype ");
  if (has_number) {
    const char* end = text.data() + text.size();
    const auto result = std::from_chars(text.data() + 5, end, a);
    if (result.ec != std::errc() || result.ptr != end || a < 2 || a > kMaxSize) a = 0;
  }
  if ((text != "hype" && !has_number) || a == 0)
    keys.refuse(key, fmt::format("expected null, a number above 0, or \"hype A\" with an integer A "
                                 "from 2 to {}; did you mean \"hype 500\"?",
                                 kMaxSize));
  return {.kind = LogitScale::Kind::kLogPosition, .a = static_cast<double>(a)};
}

void read_hypenet(KeyReader& keys, ModelConfig& config) {
  const json::array mixers = keys.get_or<json::array>("mixer_types", {});
  if (!mixers.empty()) {
    if (mixers.size() != static_cast<size_t>(config.num_layers))
      keys.refuse("mixer_types",
                  fmt::format("{} entries for {} layers", mixers.size(), config.num_layers));
    config.mixer_types.clear();
    for (const json::value& mixer : mixers) {
      if (!mixer.is_string()) keys.refuse("mixer_types", "expected strings");
      config.mixer_types.push_back(
          keys.one_of("mixer_types", std::string(mixer.get_string()), kMixers));
    }
  }
  config.attn_use_rope = keys.get_or<bool>("attn_use_rope", true);
  config.attn_use_output_gate = keys.get_or<bool>("attn_use_output_gate", false);
  config.attn_use_qk_norm = keys.get_or<bool>("attn_use_qk_norm", true);
  config.attn_logits_scaling = read_logit_scale(keys);
  config.lightning_heads = keys.size_or("lightning_nh", config.num_heads);
  config.lightning_kv_heads = keys.size_or("lightning_nkv", config.num_kv_heads);
  if (config.lightning_heads % config.lightning_kv_heads != 0)
    keys.refuse("lightning_nkv", fmt::format("does not divide {} heads", config.lightning_heads));
  config.lightning_head_dim = keys.size_or("lightning_head_dim", config.head_dim);
  check_head_dim(keys, "lightning_head_dim", config.lightning_head_dim, config.lightning_heads);
  config.lightning_scale =
      keys.one_of("lightning_scale", keys.get_or<std::string>("lightning_scale", "1/sqrt(d)"),
                  kLightningScales);
  config.lightning_use_rope = keys.get_or<bool>("lightning_use_rope", true);
  config.lightning_use_qk_norm = keys.get_or<bool>("lightning_use_qk_norm", false);
  config.lightning_use_output_norm = keys.get_or<bool>("lightning_use_output_norm", false);
  config.lightning_use_output_gate = keys.get_or<bool>("lightning_use_output_gate", false);
  config.expand_kv_proj = keys.get_or<bool>("expand_kv_proj", false);
}

json::value rope_scaling_to_json(const RopeScaling& scaling) {
  if (scaling.type == RopeScaling::Type::kNone) return nullptr;
  json::object out{{"rope_type", name_of(kRopeTypes, scaling.type)}, {"factor", scaling.factor}};
  if (scaling.type == RopeScaling::Type::kLlama3) {
    out["low_freq_factor"] = scaling.low_freq_factor;
    out["high_freq_factor"] = scaling.high_freq_factor;
    out["original_max_position_embeddings"] = scaling.original_max_position_embeddings;
  }
  if (scaling.type == RopeScaling::Type::kYarn) {
    out["beta_fast"] = scaling.beta_fast;
    out["beta_slow"] = scaling.beta_slow;
    if (scaling.attention_factor != 0) out["attention_factor"] = scaling.attention_factor;
    out["original_max_position_embeddings"] = scaling.original_max_position_embeddings;
  }
  return out;
}

json::value logit_scale_to_json(const LogitScale& scale) {
  switch (scale.kind) {
    case LogitScale::Kind::kNone:
      return nullptr;
    case LogitScale::Kind::kConstant:
      return scale.constant;
    case LogitScale::Kind::kLogPosition:
      HALO_CHECK(scale.a > 1 && scale.a == std::floor(scale.a),
                 "attn_logits_scaling: expected an integer A above 1, got {}", scale.a);
      return json::value(fmt::format("hype {:.0f}", scale.a));
  }
  throw_error("attn_logits_scaling: not a kind: {}", static_cast<int>(scale.kind));
}

json::value eos_to_json(const std::vector<int64_t>& tokens) {
  if (tokens.empty()) return nullptr;
  if (tokens.size() == 1) return tokens[0];
  return json::value_from(tokens);
}

void write_hypenet(const ModelConfig& config, json::object& out) {
  json::array& mixers = out["mixer_types"].emplace_array();
  for (const MixerType mixer : config.mixer_types)
    mixers.push_back(json::value(name_of(kMixers, mixer)));
  out["attn_use_rope"] = config.attn_use_rope;
  out["attn_use_output_gate"] = config.attn_use_output_gate;
  out["attn_use_qk_norm"] = config.attn_use_qk_norm;
  out["attn_logits_scaling"] = logit_scale_to_json(config.attn_logits_scaling);
  out["lightning_nh"] = config.lightning_heads;
  out["lightning_nkv"] = config.lightning_kv_heads;
  out["lightning_head_dim"] = config.lightning_head_dim;
  out["lightning_scale"] = name_of(kLightningScales, config.lightning_scale);
  out["lightning_use_rope"] = config.lightning_use_rope;
  out["lightning_use_qk_norm"] = config.lightning_use_qk_norm;
  out["lightning_use_output_norm"] = config.lightning_use_output_norm;
  out["lightning_use_output_gate"] = config.lightning_use_output_gate;
  out["expand_kv_proj"] = config.expand_kv_proj;
}

// Whether Qwen3's own keys say it all.
bool is_plain(const ModelConfig& config) {
  return config.attention_layers().size() == static_cast<size_t>(config.num_layers) &&
         config.attn_use_rope && !config.attn_use_output_gate && config.attn_use_qk_norm &&
         config.attn_logits_scaling == LogitScale{};
}

}  // namespace

double ModelConfig::lightning_scale_value() const {
  switch (lightning_scale) {
    case LightningScale::kInverseSqrtD:
      return 1 / std::sqrt(static_cast<double>(lightning_head_dim));
    case LightningScale::kInverseD:
      return 1 / static_cast<double>(lightning_head_dim);
    case LightningScale::kOne:
      return 1;
  }
  throw_error("lightning_scale: not a LightningScale: {}", static_cast<int>(lightning_scale));
}

std::vector<int64_t> ModelConfig::attention_layers() const {
  std::vector<int64_t> layers;
  for (size_t i = 0; i < mixer_types.size(); ++i)
    if (mixer_types[i] == MixerType::kAttention) layers.push_back(static_cast<int64_t>(i));
  return layers;
}

int64_t ModelConfig::kv_bytes_per_token() const {
  constexpr int64_t kBytes = 2;
  return static_cast<int64_t>(attention_layers().size()) * 2 * num_kv_heads * head_dim * kBytes;
}

int64_t ModelConfig::state_bytes() const {
  constexpr int64_t kBytes = 4;
  const int64_t layers = num_layers - static_cast<int64_t>(attention_layers().size());
  return layers * lightning_heads * lightning_head_dim * lightning_head_dim * kBytes;
}

ModelConfig parse_model_config(const json::object& object, const std::string& file) {
  KeyReader keys(object, file);
  ModelConfig config;
  config.is_hypenet = read_model_type(keys);
  refuse_unsupported(object, file);
  read_sizes(keys, config);
  read_tokens(keys, config);
  config.rms_norm_eps = keys.positive_or("rms_norm_eps", 1e-6);
  config.rope_theta = keys.positive_or("rope_theta", 10000);
  if (config.rope_theta <= 1) keys.refuse("rope_theta", "expected a number above 1");
  config.rope_scaling = read_rope_scaling(keys, file, config.max_position_embeddings);
  config.tie_word_embeddings = keys.get_or<bool>("tie_word_embeddings", false);
  config.attention_bias = keys.get_or<bool>("attention_bias", false);

  config.mixer_types.assign(config.num_layers, MixerType::kAttention);
  if (config.is_hypenet) {
    read_hypenet(keys, config);
  } else {
    // Defaults, and an error where a plain model carries keys that only a hybrid obeys.
    const json::object none;
    KeyReader defaults(none, file);
    read_hypenet(defaults, config);
    for (const std::string& key : defaults.asked())
      if (keys.is_present(key)) keys.refuse(key, "belongs to model_type \"hypenet\" only");
  }
  config.other = keys.unread();
  return config;
}

ModelConfig read_model_config(const std::filesystem::path& directory) {
  const std::filesystem::path path = directory / "config.json";
  const json::value value = read_json(path);
  if (!value.is_object()) throw_error("{}: expected an object", path.string());
  return parse_model_config(value.get_object(), path.string());
}

json::object model_config_to_json(const ModelConfig& config) {
  HALO_CHECK(config.is_hypenet || is_plain(config),
             "model configuration: a hybrid cannot be written as a plain {}", kQwen3);
  HALO_CHECK(config.mixer_types.size() == static_cast<size_t>(config.num_layers),
             "model configuration: {} mixers for {} layers", config.mixer_types.size(),
             config.num_layers);
  json::object out;
  out["architectures"] = json::array{architecture_of(config.is_hypenet)};
  out["model_type"] = config.is_hypenet ? kHypenet : kQwen3;
  out["vocab_size"] = config.vocab_size;
  out["hidden_size"] = config.hidden_size;
  out["intermediate_size"] = config.intermediate_size;
  out["num_hidden_layers"] = config.num_layers;
  out["num_attention_heads"] = config.num_heads;
  out["num_key_value_heads"] = config.num_kv_heads;
  out["head_dim"] = config.head_dim;
  out["rms_norm_eps"] = config.rms_norm_eps;
  out["rope_theta"] = config.rope_theta;
  out["rope_scaling"] = rope_scaling_to_json(config.rope_scaling);
  out["tie_word_embeddings"] = config.tie_word_embeddings;
  out["attention_bias"] = config.attention_bias;
  out["max_position_embeddings"] = config.max_position_embeddings;
  out["bos_token_id"] = config.bos_token_id ? json::value(*config.bos_token_id) : nullptr;
  out["eos_token_id"] = eos_to_json(config.eos_token_ids);
  if (config.is_hypenet) write_hypenet(config, out);
  for (const auto& [key, value] : config.other) out.emplace(key, value);
  return out;
}

}  // namespace halo
