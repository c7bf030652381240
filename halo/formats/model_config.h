// The one description of a decoder (hypenet.md 1.3), and Hugging Face's config.json for it.
#pragma once

#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "halo/base/dtype.h"
#include "halo/base/json.h"

namespace halo {

// Whose decoder it is. All but kHypenet are plain Transformers; they differ in biases, QK-norm and
// defaults alone.
enum class ModelType { kHypenet, kQwen3, kQwen2, kLlama, kMistral };
enum class MixerType { kAttention, kLightning };
enum class LightningScale { kInverseSqrtD, kInverseD, kOne };

// What multiplies a query at position t before attention.
struct LogitScale {
  enum class Kind { kNone, kConstant, kLogPosition };
  Kind kind = Kind::kNone;
  double constant = 1;  // kConstant
  double a = 0;         // kLogPosition: s_t = ln(t + a) / ln(a), an integer > 1
  bool operator==(const LogitScale&) const = default;
};

struct RopeScaling {
  enum class Type { kNone, kLinear, kLlama3, kYarn };
  Type type = Type::kNone;
  double factor = 1;
  double low_freq_factor = 1, high_freq_factor = 4;            // llama3
  double beta_fast = 32, beta_slow = 1, attention_factor = 0;  // yarn; 0: computed from factor
  bool truncate = true;  // yarn: the ramp begins and ends at whole frequencies
  int64_t original_max_position_embeddings = 0;
  bool operator==(const RopeScaling&) const = default;
};

struct ModelConfig {
  int64_t vocab_size = 0, hidden_size = 0, intermediate_size = 0, num_layers = 0;
  int64_t num_heads = 0, num_kv_heads = 0, head_dim = 0;
  double rms_norm_eps = 1e-6, rope_theta = 1e6;
  RopeScaling rope_scaling;
  bool tie_word_embeddings = false;
  bool attention_bias = false;         // of q, k, v, and z of a hybrid
  bool attention_output_bias = false;  // of o: as attention_bias, but never for Qwen2
  int64_t max_position_embeddings = 0;
  std::optional<int64_t> bos_token_id;
  std::vector<int64_t> eos_token_ids;  // one number or a list in the file

  std::vector<MixerType> mixer_types;  // always num_layers entries here
  bool attn_use_rope = true, attn_use_output_gate = false, attn_use_qk_norm = true;
  LogitScale attn_logits_scaling;
  int64_t lightning_heads = 0, lightning_kv_heads = 0, lightning_head_dim = 0;
  LightningScale lightning_scale = LightningScale::kInverseSqrtD;
  bool lightning_use_rope = true, lightning_use_qk_norm = false;
  bool lightning_use_output_norm = false, lightning_use_output_gate = false;
  // A research option of ours: the decay of each head and token follows from the mixer's input, by
  // `decay_proj` [H, D] and its bias [H] (docs/decisions/learned-decay.md). Never exported.
  bool lightning_learned_decay = false;
  bool expand_kv_proj = false;
  // All matrices but the embedding are int8 with a scale a row (`quantization_config`).
  bool int8_weights = false;

  ModelType model_type = ModelType::kQwen3;
  json::object other;  // keys carried through unread, in file order

  bool is_hypenet() const { return model_type == ModelType::kHypenet; }

  // 1/sqrt(d), 1/d or 1 of the lightning mixers.
  double lightning_scale_value() const;
  std::vector<int64_t> attention_layers() const;
  // What a sequence keeps: keys and values of one token in all attention layers (bf16), and the
  // states of all lightning layers (fp32), which no token adds to.
  int64_t kv_bytes_per_token() const;
  int64_t state_bytes() const;
  bool operator==(const ModelConfig&) const = default;
};

// Every violation (missing key, wrong kind, unknown mixer or scale string, unsupported feature such
// as sliding windows, mixture of experts, an unknown rope type, short convolutions) is an Error
// that names file, key, value and the nearest known value.
ModelConfig parse_model_config(const json::object& object, const std::string& file);
// DIRECTORY/config.json. Where it ties the head to the embedding and the weights beside it have
// another head, the head is not tied, as in transformers 5.
ModelConfig read_model_config(const std::filesystem::path& directory);
// The tokens that end a text which the model makes: eos_token_id of generation_config.json where
// there is that file (null: none), else of config.json, as in transformers.
std::vector<int64_t> read_end_tokens(const std::filesystem::path& directory,
                                     const ModelConfig& config);

// Hugging Face's form: model_type and architecture as they were read, HypeNetForCausalLM for a
// hybrid; rotary settings in transformers 4's spelling, which 5 reads as well.
// parse(to_json(c)) == c, and a config that was read is written with the keys it came with.
json::object model_config_to_json(const ModelConfig& config);

// Writes DIRECTORY/config.json of a model whose weights are stored as `dtype`.
void write_model_config(const std::filesystem::path& directory, const ModelConfig& config,
                        DType dtype);

// Rotary frequencies, head_dim/2 of them, with the scaling applied, fp64.
std::vector<double> rope_frequencies(const ModelConfig& config, int64_t head_dim);
// What multiplies cos and sin (yarn's attention factor; 1 otherwise).
double rope_magnitude(const ModelConfig& config);

// Files of a model directory that are neither weights nor config.json (tokenizer.json,
// tokenizer_config.json, generation_config.json, ...), carried along byte for byte.
void copy_side_files(const std::filesystem::path& from, const std::filesystem::path& to);

}  // namespace halo
