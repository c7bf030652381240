// Small models with random weights, for tests.
#pragma once

#include <ATen/ATen.h>

#include <cmath>
#include <memory>
#include <string>
#include <vector>

#include "halo/model/decoder.h"

namespace halo::test {

inline ModelConfig transformer_config() {
  ModelConfig config;
  config.vocab_size = 61;
  config.hidden_size = 32;
  config.intermediate_size = 48;
  config.num_layers = 3;
  config.num_heads = 4;
  config.num_kv_heads = 2;
  config.head_dim = 8;
  config.rope_theta = 1e4;
  config.tie_word_embeddings = true;
  config.max_position_embeddings = 1024;
  config.mixer_types.assign(3, MixerType::kAttention);
  return config;
}

// Lightning, NoPE attention with gate and logit scale, lightning.
inline ModelConfig hybrid_config() {
  ModelConfig config = transformer_config();
  config.model_type = ModelType::kHypenet;
  config.tie_word_embeddings = false;
  config.mixer_types = {MixerType::kLightning, MixerType::kAttention, MixerType::kLightning};
  config.attn_use_rope = false;
  config.attn_use_output_gate = true;
  config.attn_logits_scaling = {LogitScale::Kind::kLogPosition, 1, 30};
  config.lightning_heads = config.lightning_kv_heads = 4;
  config.lightning_head_dim = 8;
  config.lightning_use_qk_norm = true;
  config.lightning_use_output_norm = true;
  config.lightning_use_output_gate = true;
  return config;
}

// Matrices of std 1/sqrt(columns) (the embedding 1 where `unit_embedding`), even where they are
// int8, norms about 1, biases of std 0.2.
inline void fill_random(ParameterStore& store, uint64_t seed, bool unit_embedding = false) {
  at::Generator generator = at::make_generator<at::CPUGeneratorImpl>(seed);
  for (const ParameterSpec& spec : store.specs()) {
    if (spec.int8) {
      store.value(spec.name).random_(-127, 128, generator);
      store.scale(spec.name).fill_(std::sqrt(3.0 / static_cast<double>(spec.shape[1])) / 127);
      continue;
    }
    at::Tensor value = store.value(spec.name).normal_(0, 1, generator);
    if (spec.name.ends_with("bias")) {
      value.mul_(0.2);
    } else if (spec.shape.size() == 1) {
      value.mul_(0.1).add_(1);
    } else if (!unit_embedding || spec.name != "model.embed_tokens.weight") {
      value.div_(std::sqrt(static_cast<double>(spec.shape[1])));
    }
  }
}

inline std::shared_ptr<const DecoderWeights> random_model(const ModelConfig& config,
                                                          uint64_t seed = 1) {
  ParameterStore store(decoder_parameters(config), ParameterStore::Use::kFrozen, at::kFloat,
                       at::kCPU);
  fill_random(store, seed, /*unit_embedding=*/true);
  return std::make_shared<const DecoderWeights>(bind_decoder(config, store));
}

inline std::vector<int64_t> random_tokens(int64_t count, uint64_t seed, int64_t vocabulary = 61) {
  at::Generator generator = at::make_generator<at::CPUGeneratorImpl>(seed);
  const at::Tensor tokens = at::randint(vocabulary, {count}, generator, at::kLong);
  return {tokens.const_data_ptr<int64_t>(), tokens.const_data_ptr<int64_t>() + count};
}

// Final hidden states [T, D] of one sequence in one go, without any state.
inline at::Tensor plain_decode(const DecoderWeights& weights, const std::vector<int64_t>& tokens,
                               Kernels kernels) {
  at::NoGradGuard no_grad;
  Batch batch =
      make_batch(at::tensor(tokens, at::kLong), {0, static_cast<int64_t>(tokens.size())}, at::kCPU);
  batch.kernels = kernels;
  return decode(weights, batch);
}

// Largest difference over the RMS of `expected`: 0 asked of the reference form, 5e-5 of the fast.
inline double relative_error(const at::Tensor& actual, const at::Tensor& expected) {
  const double rms = expected.to(at::kDouble).square().mean().sqrt().item<double>();
  return (actual.to(at::kDouble) - expected.to(at::kDouble)).abs().max().item<double>() / rms;
}

}  // namespace halo::test
