#include "halo/exchange/gguf_model.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <optional>
#include <utility>

#include "halo/base/check.h"

namespace halo {
namespace {

constexpr std::pair<const char*, const char*> kArchitectures[] = {
    {"llama", "LlamaForCausalLM"}, {"qwen2", "Qwen2ForCausalLM"}, {"qwen3", "Qwen3ForCausalLM"}};

constexpr std::pair<std::string_view, std::string_view> kModelTensors[] = {
    {"token_embd", "model.embed_tokens"}, {"output_norm", "model.norm"}, {"output", "lm_head"}};
constexpr std::pair<std::string_view, std::string_view> kLayerTensors[] = {
    {"attn_norm", "input_layernorm"},    {"ffn_norm", "post_attention_layernorm"},
    {"attn_q", "self_attn.q_proj"},      {"attn_k", "self_attn.k_proj"},
    {"attn_v", "self_attn.v_proj"},      {"attn_output", "self_attn.o_proj"},
    {"attn_q_norm", "self_attn.q_norm"}, {"attn_k_norm", "self_attn.k_norm"},
    {"ffn_gate", "mlp.gate_proj"},       {"ffn_up", "mlp.up_proj"},
    {"ffn_down", "mlp.down_proj"}};
constexpr std::string_view kRopeFactors = "rope_freqs.weight";

// Numbers that were rounded to fp32 read as what was written: 1e-05, not 9.99999974e-06.
double shortest(double value) {
  const auto rounded = static_cast<float>(value);
  if (static_cast<double>(rounded) != value) return value;
  char text[32];
  const auto end = std::to_chars(text, text + sizeof(text), rounded).ptr;
  double out = value;
  std::from_chars(text, end, out);
  return out;
}

// "blk.3.attn_q.weight" -> "model.layers.3.self_attn.q_proj.weight"; none where nothing is known.
std::optional<std::string> hugging_face_name(std::string_view name) {
  std::string prefix;
  const auto find = [&](const auto& table, std::string_view rest) -> std::optional<std::string> {
    const size_t dot = rest.rfind('.');
    if (dot == rest.npos) return std::nullopt;
    const std::string_view ending = rest.substr(dot);
    if (ending != ".weight" && ending != ".bias") return std::nullopt;
    for (const auto& [gguf, own] : table)
      if (rest.substr(0, dot) == gguf) return prefix + std::string(own) + std::string(ending);
    return std::nullopt;
  };
  constexpr std::string_view kBlock = "blk.";
  if (!name.starts_with(kBlock)) return find(kModelTensors, name);
  name.remove_prefix(kBlock.size());
  const size_t dot = name.find('.');
  const std::string_view number = name.substr(0, dot);
  if (dot == name.npos || number.empty() || number.size() > 4 ||
      number.find_first_not_of("0123456789") != number.npos)
    return std::nullopt;
  prefix = fmt::format("model.layers.{}.", number);
  return find(kLayerTensors, name.substr(dot + 1));
}

const GgufTensor* find_tensor(const Gguf& contents, std::string_view name) {
  const auto it = std::ranges::find(contents.tensors, name, &GgufTensor::name);
  return it == contents.tensors.end() ? nullptr : &*it;
}

// Llama 3's scaling is stored as the divisor of each frequency, without the numbers it was made of.
// Those of the published models are tried: low 1, high 4, trained on 8,192 tokens.
json::object llama3_scaling(const GgufTensor& tensor, const std::string& file, double theta,
                            int64_t head_dim) {
  constexpr double kLow = 1, kHigh = 4;
  constexpr int64_t kLength = 8192;
  const auto refuse = [&](const std::string& what) {
    throw_error("{}: tensor '{}' {}", file, kRopeFactors, what);
  };
  if (tensor.shape != std::vector<int64_t>{head_dim / 2})
    refuse(fmt::format("must hold {} numbers, one a frequency", head_dim / 2));
  std::vector<float> divisors(static_cast<size_t>(head_dim / 2));
  dequantize(tensor.type, tensor.bytes, divisors);
  ModelConfig model;
  model.rope_theta = theta;
  const std::vector<double> plain = rope_frequencies(model, head_dim);
  const double factor = *std::ranges::max_element(divisors);
  model.rope_scaling = {.type = RopeScaling::Type::kLlama3,
                        .factor = factor,
                        .low_freq_factor = kLow,
                        .high_freq_factor = kHigh,
                        .original_max_position_embeddings = kLength};
  const std::vector<double> scaled = rope_frequencies(model, head_dim);
  for (size_t i = 0; i < plain.size(); ++i)
    if (!(std::abs(plain[i] / scaled[i] - divisors[i]) <= 1e-5 * divisors[i]))
      refuse(
          "is no rotary scaling of Llama 3 with low_freq_factor 1, high_freq_factor 4 and "
          "original_max_position_embeddings 8192; config.json cannot say it");
  return {{"rope_type", "llama3"},
          {"factor", factor},
          {"low_freq_factor", kLow},
          {"high_freq_factor", kHigh},
          {"original_max_position_embeddings", kLength}};
}

// Builds the config.json that parse_model_config then checks.
class ConfigWriter {
 public:
  ConfigWriter(const Gguf& contents, const std::string& file)
      : contents_(contents),
        file_(file),
        metadata_(contents, file),
        type_(metadata_.get<std::string_view>("general.architecture")) {}

  json::object write() {
    const auto* known = std::ranges::find(kArchitectures, type_,
                                          [](const auto& a) { return std::string_view(a.first); });
    if (known == std::end(kArchitectures))
      throw_error("{}: architecture '{}' is not supported; llama, qwen2 and qwen3 are", file_,
                  type_);
    out_["architectures"] = json::array{known->second};
    out_["model_type"] = type_;
    refuse_unsupported();
    write_sizes();
    write_rope();
    write_tokens();
    out_["hidden_act"] = "silu";
    out_["tie_word_embeddings"] = find_tensor(contents_, "output.weight") == nullptr;
    if (type_ != "qwen2")
      out_["attention_bias"] = find_tensor(contents_, "blk.0.attn_q.bias") != nullptr;
    return out_;
  }

 private:
  std::string key(const std::string& name) const { return type_ + "." + name; }
  int64_t integer(const std::string& name) const { return metadata_.get<int64_t>(key(name)); }

  void refuse_unsupported() const {
    for (const char* name : {"expert_count", "attention.sliding_window"}) {
      const GgufValue* value = metadata_.find(key(name));
      const auto* number = value ? std::get_if<int64_t>(value) : nullptr;
      if (value && !(number && *number == 0)) metadata_.refuse(key(name), "is not supported");
    }
  }

  void write_sizes() {
    const GgufTensor* embedding = find_tensor(contents_, "token_embd.weight");
    if (!embedding || embedding->shape.size() != 2)
      throw_error("{}: there is no matrix 'token_embd.weight'", file_);
    const int64_t vocab = embedding->shape[0];
    if (metadata_.get_or(key("vocab_size"), vocab) != vocab)
      metadata_.refuse(key("vocab_size"),
                       fmt::format("is not {}, as 'token_embd.weight' is", vocab));
    const int64_t hidden = integer("embedding_length"), heads = integer("attention.head_count");
    if (heads < 1 || hidden < heads)
      metadata_.refuse(key("attention.head_count"), fmt::format("is {} for {}", heads, hidden));
    head_dim_ = metadata_.get_or(key("attention.key_length"), hidden / heads);
    for (const char* name : {"attention.value_length", "rope.dimension_count"})
      if (metadata_.get_or(key(name), head_dim_) != head_dim_)
        metadata_.refuse(key(name), fmt::format("is not {}, the size of a head", head_dim_));
    out_["vocab_size"] = vocab;
    out_["hidden_size"] = hidden;
    out_["intermediate_size"] = integer("feed_forward_length");
    out_["num_hidden_layers"] = integer("block_count");
    out_["num_attention_heads"] = heads;
    out_["num_key_value_heads"] = metadata_.get_or(key("attention.head_count_kv"), heads);
    out_["head_dim"] = head_dim_;
    out_["max_position_embeddings"] = integer("context_length");
    metadata_.get<double>(key("attention.layer_norm_rms_epsilon"));  // is there
    out_["rms_norm_eps"] = metadata_.number_or(key("attention.layer_norm_rms_epsilon"), 0);
  }

  void write_rope() {
    const double theta = metadata_.number_or(key("rope.freq_base"), 10000);
    out_["rope_theta"] = theta;
    out_["rope_scaling"] = nullptr;
    // As llama.cpp has it: a factor without a type is linear, and has an older name.
    const auto type = metadata_.get_or<std::string_view>(key("rope.scaling.type"), "linear");
    const double factor = metadata_.number_or(key("rope.scaling.factor"),
                                              metadata_.number_or(key("rope.scale_linear"), 1));
    const bool is_scaled = type != "none" && factor != 1 && factor != 0;
    if (const GgufTensor* factors = find_tensor(contents_, kRopeFactors)) {
      if (is_scaled || (type != "none" && metadata_.has(key("rope.scaling.type"))))
        metadata_.refuse(key("rope.scaling.type"),
                         fmt::format("is '{}', with a factor of {}, beside the tensor '{}'", type,
                                     factor, kRopeFactors));
      out_["rope_scaling"] = llama3_scaling(*factors, file_, theta, head_dim_);
    } else if (type == "linear") {
      if (is_scaled)
        out_["rope_scaling"] = json::object{{"rope_type", "linear"}, {"factor", factor}};
    } else if (type == "yarn") {
      if (is_scaled) out_["rope_scaling"] = yarn_scaling(factor);
    } else if (type != "none") {
      metadata_.refuse(key("rope.scaling.type"),
                       fmt::format("is '{}'; none, linear and yarn are supported", type));
    }
    refuse_other_scalings(type == "yarn");
  }

  json::object yarn_scaling(double factor) const {
    json::object scaling{
        {"rope_type", "yarn"},
        {"factor", factor},
        {"original_max_position_embeddings",
         metadata_.get_or(key("rope.scaling.original_context_length"), integer("context_length"))}};
    for (const auto& [name, own] :
         {std::pair("yarn_beta_fast", "beta_fast"), {"yarn_beta_slow", "beta_slow"}})
      if (metadata_.has(key(fmt::format("rope.scaling.{}", name))))
        scaling[own] = metadata_.number_or(key(fmt::format("rope.scaling.{}", name)), 0);
    // There it is on top of the usual magnitude, in config.json instead of it.
    const double magnitude = metadata_.number_or(key("rope.scaling.attn_factor"), 1);
    if (magnitude != 1) scaling["attention_factor"] = magnitude * (0.1 * std::log(factor) + 1);
    return scaling;
  }

  // Numbers that would change the rotation and that config.json has no place for.
  void refuse_other_scalings(bool is_yarn) const {
    const auto need = [&](const char* name, double usual) {
      const std::string full = key(fmt::format("rope.scaling.{}", name));
      const double value = metadata_.number_or(full, usual);
      // -1: whatever the type asks for.
      if (value != usual && !(usual == 1 && value == -1))
        metadata_.refuse(full, fmt::format("is {}; {} is supported", value, usual));
    };
    if (!is_yarn) need("attn_factor", 1);
    if (is_yarn) need("yarn_ext_factor", 1);
    need("yarn_attn_factor", 1);
    need("yarn_log_multiplier", 0);
  }

  void write_tokens() {
    for (const auto& [name, own] :
         {std::pair("bos", "bos_token_id"), {"padding", "pad_token_id"}}) {
      const std::string key = fmt::format("tokenizer.ggml.{}_token_id", name);
      if (metadata_.has(key)) out_[own] = metadata_.get<int64_t>(key);
    }
    const std::vector<int64_t> ends = metadata_.end_tokens();
    if (!ends.empty()) out_["eos_token_id"] = json::value_from(ends);
  }

  const Gguf& contents_;
  const std::string& file_;
  GgufMetadata metadata_;
  std::string type_;
  int64_t head_dim_ = 0;
  json::object out_;
};

}  // namespace

const GgufValue* GgufMetadata::find(const std::string& key) const {
  const auto& metadata = contents_.metadata;
  const auto it = metadata.find(key);
  return it == metadata.end() ? nullptr : &it->second;
}

double GgufMetadata::number_or(const std::string& key, double fallback) const {
  const GgufValue* value = find(key);
  if (value == nullptr) return fallback;
  if (const auto* integer = std::get_if<int64_t>(value)) return static_cast<double>(*integer);
  return shortest(get<double>(key));
}

std::vector<int64_t> GgufMetadata::end_tokens() const {
  std::vector<int64_t> out;
  for (const char* name : {"eos", "eot", "eom"}) {
    const std::string key = fmt::format("tokenizer.ggml.{}_token_id", name);
    if (!has(key)) continue;
    const auto id = get<int64_t>(key);
    if (std::ranges::find(out, id) == out.end()) out.push_back(id);
  }
  return out;
}

void GgufMetadata::refuse(const std::string& key, const std::string& what) const {
  throw_error("{}: metadata key '{}' {}", file_, key, what);
}

GgufModel::GgufModel(const Gguf& contents, const std::string& file)
    : config_(parse_model_config(ConfigWriter(contents, file).write(), file)) {
  for (const GgufTensor& tensor : contents.tensors) {
    if (tensor.name == kRopeFactors) continue;  // in the configuration
    const std::optional<std::string> name = hugging_face_name(tensor.name);
    if (!name)
      throw_error("{}: tensor '{}' belongs to nothing in a {} model", file, tensor.name,
                  GgufMetadata(contents, file).get<std::string_view>("general.architecture"));
    GgufWeight weight{*name, tensor.shape, &tensor};
    if (config_.model_type == ModelType::kLlama) {
      if (name->find("q_proj") != name->npos) weight.paired_heads = config_.num_heads;
      if (name->find("k_proj") != name->npos) weight.paired_heads = config_.num_kv_heads;
    }
    // In a vector the "rows" are its elements.
    if (weight.paired_heads > 0 && tensor.shape[0] != weight.paired_heads * config_.head_dim)
      throw_error("{}: tensor '{}' has {} rows, expected {} heads of {}", file, tensor.name,
                  tensor.shape[0], weight.paired_heads, config_.head_dim);
    weights_.push_back(std::move(weight));
  }
}

namespace {

// Where row (or element) `row` of a weight is stored.
int64_t stored_row(const GgufWeight& weight, int64_t row) {
  if (weight.paired_heads == 0) return row;
  const int64_t size = weight.shape[0] / weight.paired_heads;
  const int64_t head = row / size, half = row % size / (size / 2), pair = row % (size / 2);
  return head * size + 2 * pair + half;
}

}  // namespace

void read_rows(const GgufWeight& weight, int64_t first, std::span<float> out) {
  const GgufTensor& tensor = *weight.tensor;
  const int64_t length = tensor.row_length();
  HALO_CHECK(out.size() % length == 0, "read_rows: {} values for rows of {}", out.size(), length);
  const auto rows = static_cast<int64_t>(out.size()) / length;
  HALO_CHECK(first >= 0 && first + rows <= tensor.num_rows(), "read_rows: rows {} to {} of {}",
             first, first + rows, tensor.num_rows());
  const GgufBlock block = gguf_block(tensor.type);
  const int64_t bytes = length / block.elements * block.bytes;
  const bool is_vector = tensor.shape.size() == 1;
  for (int64_t row = 0; row < rows; ++row) {
    const int64_t from = is_vector ? 0 : stored_row(weight, first + row);
    dequantize(tensor.type, tensor.bytes.subspan(from * bytes, bytes),
               out.subspan(row * length, length));
  }
  if (!is_vector || weight.paired_heads == 0) return;
  const std::vector<float> stored(out.begin(), out.end());
  for (int64_t i = 0; i < length; ++i) out[i] = stored[stored_row(weight, i)];
}

}  // namespace halo
