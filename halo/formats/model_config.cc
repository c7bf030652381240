// Reading and writing config.json. Everything that would change what the model computes is either
// understood or refused by name; the rest is carried along.
#include "halo/formats/model_config.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <utility>

#include "halo/base/check.h"
#include "halo/base/nearest.h"
#include "halo/formats/config_keys.h"
#include "halo/formats/weight_names.h"

namespace halo {
namespace {

constexpr int64_t kDefaultHypeA = 362;

const std::vector<std::pair<std::string, ModelType>> kModelTypes = {
    {"qwen3", ModelType::kQwen3},
    {"hypenet", ModelType::kHypenet},
    {"qwen2", ModelType::kQwen2},
    {"llama", ModelType::kLlama},
    {"mistral", ModelType::kMistral}};

const std::vector<std::pair<std::string, ModelType>> kArchitectures = {
    {"Qwen3ForCausalLM", ModelType::kQwen3},
    {"HypeNetForCausalLM", ModelType::kHypenet},
    {"Qwen2ForCausalLM", ModelType::kQwen2},
    {"LlamaForCausalLM", ModelType::kLlama},
    {"MistralForCausalLM", ModelType::kMistral}};

const std::vector<std::pair<std::string, LightningScale>> kLightningScales = {
    {"1/sqrt(d)", LightningScale::kInverseSqrtD},
    {"1/d", LightningScale::kInverseD},
    {"none", LightningScale::kOne}};

const std::vector<std::pair<std::string, MixerType>> kMixers = {
    {"attn", MixerType::kAttention},
    {"lightning-attn", MixerType::kLightning},
    {"lightning_attn", MixerType::kLightning}};

// Features that change the result and that this decoder does not have. Their keys stay in `other`.
void refuse_unsupported(const json::object& object, const std::string& file) {
  KeyReader keys(object, file);
  if (keys.get_or<std::string>("hidden_act", "silu") != "silu")
    keys.refuse("hidden_act", "the only activation supported is \"silu\"");
  for (const char* key :
       {"use_sliding_window", "mlp_bias", "rope_interleaved", "lightning_use_short_conv"})
    if (keys.get_or<bool>(key, false)) keys.refuse(key, "not supported; expected false");
  for (const char* key : {"num_experts", "num_local_experts", "n_routed_experts"})
    if (keys.get_or<int64_t>(key, 0) != 0) keys.refuse(key, "mixture of experts is not supported");
  if (keys.find("lightning_rope_scaling") != nullptr)
    keys.refuse("lightning_rope_scaling",
                "not supported; expected null (rotary scaling belongs to 'rope_scaling')");
  if (keys.get_or<double>("partial_rotary_factor", 1) != 1)
    keys.refuse("partial_rotary_factor", "rotation of a part of the head is not supported");
  for (const json::value& type : keys.get_or<json::array>("layer_types", {}))
    if (type != "full_attention")
      keys.refuse("layer_types", "the only type supported is \"full_attention\"");
}

// What `halo quantize` writes.
json::object int8_quantization() {
  return {{"quant_method", "halo"}, {"weights", "int8"}};
}

bool read_int8_weights(KeyReader& keys, const json::object& object) {
  const json::value* value = object.if_contains("quantization_config");
  if (value == nullptr || value->is_null()) return false;
  if (*keys.find("quantization_config") != json::value(int8_quantization()))
    keys.refuse("quantization_config",
                fmt::format("the only one supported is {}, which `halo quantize` writes; expected "
                            "weights that are not quantised",
                            json::serialize(int8_quantization())));
  return true;
}

ModelType read_model_type(KeyReader& keys) {
  const ModelType type =
      keys.one_of("model_type", keys.get<std::string>("model_type"), kModelTypes);
  const std::string& expected = name_of(kArchitectures, type);
  const json::array architectures = keys.get_or<json::array>("architectures", {});
  if (!architectures.empty() && architectures != json::array{expected})
    keys.refuse("architectures", fmt::format("expected [\"{}\"]", expected));
  return type;
}

// A window as long as the longest input never hides anything. The key stays in `other`.
void refuse_sliding_window(const json::object& object, const std::string& file,
                           const ModelConfig& config) {
  constexpr int64_t kWindowOfMistral = 4096;  // where the key is absent; null means none
  if (config.model_type != ModelType::kMistral) return;
  KeyReader keys(object, file);
  const int64_t window = keys.is_present("sliding_window")
                             ? keys.size_or("sliding_window", kMaxPosition, kMaxPosition)
                             : kWindowOfMistral;
  if (window < config.max_position_embeddings)
    keys.refuse("sliding_window",
                fmt::format("a sliding window of {} is not supported; expected null or at least "
                            "max_position_embeddings, {}",
                            window, config.max_position_embeddings));
}

void check_head_dim(const KeyReader& keys, const std::string& key, int64_t head_dim,
                    int64_t num_heads) {
  if (head_dim % 2 != 0) keys.refuse(key, fmt::format("{} is not even", head_dim));
  if (head_dim * num_heads > kMaxSize)
    keys.refuse(key, fmt::format("{} heads of {} are more than {}", num_heads, head_dim, kMaxSize));
}

bool has_qk_norm(ModelType type) {
  return type == ModelType::kQwen3;
}

int64_t default_max_position(ModelType type) {
  switch (type) {
    case ModelType::kHypenet:
      return 1048576;
    case ModelType::kQwen3:
    case ModelType::kQwen2:
      return 32768;
    case ModelType::kLlama:
      return 2048;
    case ModelType::kMistral:
      return 131072;
  }
  throw_error("not a ModelType: {}", static_cast<int>(type));
}

void read_sizes(KeyReader& keys, ModelConfig& config) {
  config.vocab_size = keys.size("vocab_size");
  config.hidden_size = keys.size("hidden_size");
  config.intermediate_size = keys.size("intermediate_size");
  config.num_layers = keys.size("num_hidden_layers", kMaxLayers);
  config.num_heads = keys.size("num_attention_heads");
  const ModelType type = config.model_type;
  // Other absent defaults (32, 8) are those of one published size.
  if (!keys.is_present("num_key_value_heads") && type != ModelType::kLlama)
    keys.refuse("num_key_value_heads", "a value is needed (null: as many as heads)");
  config.num_kv_heads = keys.size_or("num_key_value_heads", config.num_heads);
  if (config.num_heads % config.num_kv_heads != 0)
    keys.refuse("num_key_value_heads", fmt::format("does not divide {} heads", config.num_heads));
  const bool is_128 =
      !keys.is_present("head_dim") && (type == ModelType::kQwen3 || type == ModelType::kHypenet);
  config.head_dim = keys.size_or("head_dim", is_128 ? 128 : config.hidden_size / config.num_heads);
  check_head_dim(keys, "head_dim", config.head_dim, config.num_heads);
  config.max_position_embeddings =
      keys.size_or("max_position_embeddings", default_max_position(type), kMaxPosition);
}

void read_biases(KeyReader& keys, ModelConfig& config) {
  switch (config.model_type) {
    case ModelType::kQwen2:
      config.attention_bias = true;
      break;
    case ModelType::kMistral:
      break;
    case ModelType::kQwen3:
    case ModelType::kLlama:
    case ModelType::kHypenet:
      config.attention_bias = keys.get_or<bool>("attention_bias", false);
      config.attention_output_bias = config.attention_bias;
  }
}

int64_t check_token(const KeyReader& keys, const std::string& key, const json::value& value,
                    int64_t vocab_size) {
  if (!value.is_int64() || value.get_int64() < 0 || value.get_int64() >= vocab_size)
    keys.refuse(key, fmt::format("expected tokens from 0 to {}", vocab_size - 1));
  return value.get_int64();
}

// The value of a key as a list; none where it is absent.
json::array one_or_more(KeyReader& keys, const std::string& key) {
  const json::value* value = keys.find(key);
  if (value == nullptr) return {};
  return value->is_array() ? value->get_array() : json::array{*value};
}

void read_tokens(KeyReader& keys, ModelConfig& config) {
  if (const json::value* bos = keys.find("bos_token_id"))
    config.bos_token_id = check_token(keys, "bos_token_id", *bos, config.vocab_size);
  for (const json::value& token : one_or_more(keys, "eos_token_id"))
    config.eos_token_ids.push_back(check_token(keys, "eos_token_id", token, config.vocab_size));
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
  config.lightning_learned_decay = keys.get_or<bool>("lightning_learned_decay", false);
  config.expand_kv_proj = keys.get_or<bool>("expand_kv_proj", false);
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
  if (config.lightning_learned_decay) out["lightning_learned_decay"] = true;
  out["expand_kv_proj"] = config.expand_kv_proj;
}

// Whether a decoder of a plain type can have these biases.
bool are_plain_biases(const ModelConfig& config) {
  switch (config.model_type) {
    case ModelType::kQwen2:
      return config.attention_bias && !config.attention_output_bias;
    case ModelType::kMistral:
      return !config.attention_bias && !config.attention_output_bias;
    case ModelType::kQwen3:
    case ModelType::kLlama:
    case ModelType::kHypenet:
      return config.attention_bias == config.attention_output_bias;
  }
  throw_error("not a ModelType: {}", static_cast<int>(config.model_type));
}

// Whether the keys of its plain type say it all.
bool is_plain(const ModelConfig& config) {
  return config.attention_layers().size() == static_cast<size_t>(config.num_layers) &&
         config.attn_use_rope && !config.attn_use_output_gate &&
         config.attn_use_qk_norm == has_qk_norm(config.model_type) &&
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
  config.model_type = read_model_type(keys);
  refuse_unsupported(object, file);
  read_sizes(keys, config);
  refuse_sliding_window(object, file, config);
  read_tokens(keys, config);
  config.rms_norm_eps = keys.positive_or("rms_norm_eps", 1e-6);
  read_rope(keys, file, config);
  config.tie_word_embeddings = keys.get_or<bool>("tie_word_embeddings", false);

  config.mixer_types.assign(config.num_layers, MixerType::kAttention);
  if (config.is_hypenet()) {
    read_hypenet(keys, config);
  } else {
    // Defaults, and an error where a plain model carries keys that only a hybrid obeys.
    const json::object none;
    KeyReader defaults(none, file);
    read_hypenet(defaults, config);
    for (const std::string& key : defaults.asked())
      if (keys.is_present(key)) keys.refuse(key, "belongs to model_type \"hypenet\" only");
    config.attn_use_qk_norm = has_qk_norm(config.model_type);
  }
  read_biases(keys, config);
  config.int8_weights = read_int8_weights(keys, object);
  config.other = keys.unread();
  return config;
}

ModelConfig read_model_config(const std::filesystem::path& directory) {
  const std::filesystem::path path = directory / "config.json";
  const json::value value = read_json(path);
  if (!value.is_object()) throw_error("{}: expected an object", path.string());
  ModelConfig config = parse_model_config(value.get_object(), path.string());
  if (config.tie_word_embeddings && WeightFiles::are_in(directory))
    config.tie_word_embeddings = !has_own_head(WeightFiles(directory).tensors());
  return config;
}

std::vector<int64_t> read_end_tokens(const std::filesystem::path& directory,
                                     const ModelConfig& config) {
  const std::filesystem::path path = directory / "generation_config.json";
  if (!std::filesystem::exists(path)) return config.eos_token_ids;
  const json::value value = read_json(path);
  if (!value.is_object()) throw_error("{}: expected an object", path.string());
  KeyReader keys(value.get_object(), path.string());
  std::vector<int64_t> tokens;
  for (const json::value& token : one_or_more(keys, "eos_token_id")) {
    // Tokens beyond the vocabulary never come.
    if (!token.is_int64()) keys.refuse("eos_token_id", "expected a token or a list of them");
    tokens.push_back(token.get_int64());
  }
  return tokens;
}

json::object model_config_to_json(const ModelConfig& config) {
  const std::string& type = name_of(kModelTypes, config.model_type);
  HALO_CHECK(config.is_hypenet() || is_plain(config),
             "model configuration: a hybrid cannot be written as a plain {}", type);
  HALO_CHECK(are_plain_biases(config), "model configuration: {} has no such biases", type);
  HALO_CHECK(config.mixer_types.size() == static_cast<size_t>(config.num_layers),
             "model configuration: {} mixers for {} layers", config.mixer_types.size(),
             config.num_layers);
  json::object out;
  out["architectures"] = json::array{name_of(kArchitectures, config.model_type)};
  out["model_type"] = type;
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
  const bool fixed_bias =
      config.model_type == ModelType::kQwen2 || config.model_type == ModelType::kMistral;
  if (!fixed_bias) out["attention_bias"] = config.attention_bias;
  out["max_position_embeddings"] = config.max_position_embeddings;
  out["bos_token_id"] = config.bos_token_id ? json::value(*config.bos_token_id) : nullptr;
  out["eos_token_id"] = eos_to_json(config.eos_token_ids);
  if (config.is_hypenet()) write_hypenet(config, out);
  if (config.int8_weights) out["quantization_config"] = int8_quantization();
  for (const auto& [key, value] : config.other) out.emplace(key, value);
  return out;
}

void write_model_config(const std::filesystem::path& directory, const ModelConfig& config,
                        DType dtype) {
  json::object object = model_config_to_json(config);
  object.erase("dtype");  // transformers 5's name for it
  object["torch_dtype"] = dtype == DType::kBF16  ? "bfloat16"
                          : dtype == DType::kF16 ? "float16"
                                                 : "float32";
  write_json(directory / "config.json", object);
}

}  // namespace halo
