// From a configuration to parameters and from parameters to weights (tensor names: hypenet.md 1.4).
#include "ATen/ATen.h"
#include "halo/base/check.h"
#include "halo/base/progress.h"
#include "halo/formats/weight_names.h"
#include "halo/kernels/lightning/lightning.h"
#include "halo/model/decoder.h"
#include "halo/model/fp32_vectors.h"

namespace halo {
namespace {

std::string layer_prefix(int64_t layer) {
  return fmt::format("model.layers.{}.", layer);
}

// What a mixer needs to know, the same for both kinds.
struct MixerShape {
  int64_t heads, kv_heads, head_dim;
  bool qk_norm, gate, gate_bias, o_norm;
  const char* gate_name;
};

MixerShape mixer_shape(const ModelConfig& c, int64_t layer) {
  if (c.mixer_types[layer] == MixerType::kAttention) {
    return {c.num_heads, c.num_kv_heads, c.head_dim, c.attn_use_qk_norm, c.attn_use_output_gate,
            false,       false,          "o_gate"};
  }
  return {c.lightning_heads,           c.lightning_kv_heads,
          c.lightning_head_dim,        c.lightning_use_qk_norm,
          c.lightning_use_output_gate, c.attention_bias,
          c.lightning_use_output_norm, "z_proj"};
}

Weight weight_if(const ParameterStore& store, const std::string& name) {
  return store.contains(name) ? store.weight(name) : Weight{};
}

// What both kinds of mixers have; `p` is the prefix of their tensors' names.
template <class Weights>
Weights bind_shared(const MixerShape& shape, const std::string& p, const ParameterStore& store) {
  Weights w;
  w.heads = shape.heads;
  w.kv_heads = shape.kv_heads;
  w.head_dim = shape.head_dim;
  w.gate = shape.gate;
  w.q_norm = weight_if(store, p + "q_norm.weight");
  w.k_norm = weight_if(store, p + "k_norm.weight");
  w.o_proj = store.weight(p + "o_proj.weight");
  w.o_bias = weight_if(store, p + "o_proj.bias");
  return w;
}

AttentionWeights bind_attention(const ModelConfig& c, const MixerShape& shape, const std::string& p,
                                const ParameterStore& store) {
  auto w = bind_shared<AttentionWeights>(shape, p, store);
  const bool split_gate = w.gate && c.attention_bias;
  w.qkvg = store.stack(p + "q_proj.weight",
                       w.gate && !split_gate ? p + "o_gate.weight" : p + "v_proj.weight");
  if (split_gate) w.biased_gate = store.weight(p + "o_gate.weight");
  if (c.attention_bias) w.qkv_bias = store.stack(p + "q_proj.bias", p + "v_proj.bias");
  if (c.attn_use_rope) w.inv_freq = rope_frequencies(c, w.head_dim);
  w.rope_magnitude = rope_magnitude(c);
  w.logit_scale = c.attn_logits_scaling;
  return w;
}

LightningWeights bind_lightning(const ModelConfig& c, const MixerShape& shape, const std::string& p,
                                const ParameterStore& store) {
  auto w = bind_shared<LightningWeights>(shape, p, store);
  w.qkvz = store.stack(p + "q_proj.weight", p + (w.gate ? "z_proj.weight" : "v_proj.weight"));
  if (c.attention_bias) {
    w.qkvz_bias = store.stack(p + "q_proj.bias", p + (w.gate ? "z_proj.bias" : "v_proj.bias"));
  }
  w.o_norm = weight_if(store, p + "o_norm.weight");
  w.decay = weight_if(store, p + "decay_proj.weight");
  w.decay_bias = weight_if(store, p + "decay_proj.bias");
  w.scale = c.lightning_scale_value();
  w.slopes = alibi_slopes(w.heads);
  if (c.lightning_use_rope) w.inv_freq = rope_frequencies(c, w.head_dim);
  w.rope_magnitude = rope_magnitude(c);
  return w;
}

void detach(Weight& w) {
  if (w.defined()) w.value = w.value.detach();
  w.grad = at::Tensor();
}

}  // namespace

std::vector<ParameterSpec> mixer_parameters(const ModelConfig& c, int64_t layer) {
  const std::string p = layer_prefix(layer) + "self_attn.";
  const MixerShape m = mixer_shape(c, layer);
  const int64_t q_rows = m.heads * m.head_dim, kv_rows = m.kv_heads * m.head_dim;
  std::vector<ParameterSpec> specs = {{p + "q_proj.weight", {q_rows, c.hidden_size}, false},
                                      {p + "k_proj.weight", {kv_rows, c.hidden_size}, true},
                                      {p + "v_proj.weight", {kv_rows, c.hidden_size}, true}};
  const std::string gate = p + m.gate_name;
  if (m.gate) {
    specs.push_back({gate + ".weight", {q_rows, c.hidden_size}, m.gate_bias || !c.attention_bias});
  }
  if (c.attention_bias) {
    specs.push_back({p + "q_proj.bias", {q_rows}, false});
    specs.push_back({p + "k_proj.bias", {kv_rows}, true});
    specs.push_back({p + "v_proj.bias", {kv_rows}, true});
    if (m.gate && m.gate_bias) specs.push_back({gate + ".bias", {q_rows}, true});
  }
  if (m.qk_norm) {
    specs.push_back({p + "q_norm.weight", {m.head_dim}, false});
    specs.push_back({p + "k_norm.weight", {m.head_dim}, false});
  }
  if (m.o_norm) specs.push_back({p + "o_norm.weight", {q_rows}, false});
  if (c.lightning_learned_decay && c.mixer_types[layer] == MixerType::kLightning) {
    specs.push_back({p + "decay_proj.weight", {m.heads, c.hidden_size}, false});
    specs.push_back({p + "decay_proj.bias", {m.heads}, false});
  }
  specs.push_back({p + "o_proj.weight", {c.hidden_size, q_rows}, false});
  if (c.attention_output_bias) specs.push_back({p + "o_proj.bias", {c.hidden_size}, false});
  return specs;
}

std::vector<ParameterSpec> all_mixer_parameters(const ModelConfig& c) {
  std::vector<ParameterSpec> specs;
  for (int64_t layer = 0; layer < c.num_layers; ++layer) {
    for (auto& spec : mixer_parameters(c, layer)) specs.push_back(std::move(spec));
  }
  return specs;
}

std::vector<ParameterSpec> decoder_parameters(const ModelConfig& c) {
  std::vector<ParameterSpec> specs = {
      {"model.embed_tokens.weight", {c.vocab_size, c.hidden_size}, false}};
  for (int64_t layer = 0; layer < c.num_layers; ++layer) {
    const std::string p = layer_prefix(layer);
    specs.push_back({p + "input_layernorm.weight", {c.hidden_size}, false});
    for (auto& spec : mixer_parameters(c, layer)) specs.push_back(std::move(spec));
    specs.push_back({p + "post_attention_layernorm.weight", {c.hidden_size}, false});
    specs.push_back({p + "mlp.gate_proj.weight", {c.intermediate_size, c.hidden_size}, false});
    specs.push_back({p + "mlp.up_proj.weight", {c.intermediate_size, c.hidden_size}, true});
    specs.push_back({p + "mlp.down_proj.weight", {c.hidden_size, c.intermediate_size}, false});
  }
  specs.push_back({"model.norm.weight", {c.hidden_size}, false});
  if (!c.tie_word_embeddings)
    specs.push_back({"lm_head.weight", {c.vocab_size, c.hidden_size}, false});
  for (ParameterSpec& spec : specs)
    spec.int8 = c.int8_weights && spec.shape.size() == 2 && spec.name != kEmbeddingName;
  return specs;
}

Mixer bind_mixer(const ModelConfig& config, int64_t layer, const ParameterStore& store) {
  const std::string p = layer_prefix(layer) + "self_attn.";
  const MixerShape shape = mixer_shape(config, layer);
  if (config.mixer_types[layer] == MixerType::kAttention)
    return bind_attention(config, shape, p, store);
  return bind_lightning(config, shape, p, store);
}

std::vector<Mixer> bind_mixers(const ModelConfig& config, const ParameterStore& store) {
  std::vector<Mixer> mixers;
  for (int64_t layer = 0; layer < config.num_layers; ++layer) {
    mixers.push_back(store.has_layer(layer) ? bind_mixer(config, layer, store) : Mixer());
  }
  return mixers;
}

DecoderWeights bind_decoder(const ModelConfig& config, const ParameterStore& store) {
  DecoderWeights w;
  w.eps = config.rms_norm_eps;
  w.embedding = store.weight("model.embed_tokens.weight");
  for (int64_t layer = 0; layer < config.num_layers; ++layer) {
    const std::string p = layer_prefix(layer);
    w.layers.push_back({store.weight(p + "input_layernorm.weight"),
                        bind_mixer(config, layer, store),
                        store.weight(p + "post_attention_layernorm.weight"),
                        store.stack(p + "mlp.gate_proj.weight", p + "mlp.up_proj.weight"),
                        store.weight(p + "mlp.down_proj.weight")});
  }
  w.norm = store.weight("model.norm.weight");
  w.head = config.tie_word_embeddings ? w.embedding : store.weight("lm_head.weight");
  w.sharing = store.layers();
  return w;
}

namespace {

// Calls `use` with every weight that there is.
template <class Use>
void for_each_weight(DecoderWeights& w, Use use) {
  const auto use_all = [&](std::initializer_list<Weight*> weights) {
    for (Weight* weight : weights) {
      if (weight->defined()) use(*weight);
    }
  };
  use_all({&w.embedding, &w.norm, &w.head});
  for (LayerWeights& layer : w.layers) {
    use_all({&layer.input_norm, &layer.post_norm, &layer.gate_up, &layer.down});
    if (auto* a = std::get_if<AttentionWeights>(&layer.mixer)) {
      use_all({&a->qkvg, &a->qkv_bias, &a->biased_gate, &a->q_norm, &a->k_norm, &a->o_proj,
               &a->o_bias});
    } else {
      auto& l = std::get<LightningWeights>(layer.mixer);
      use_all({&l.qkvz, &l.qkvz_bias, &l.q_norm, &l.k_norm, &l.o_norm, &l.decay, &l.decay_bias,
               &l.o_proj, &l.o_bias});
    }
  }
}

}  // namespace

DecoderWeights without_gradients(DecoderWeights weights) {
  for_each_weight(weights, detach);
  return weights;
}

DecoderWeights with_fp32_vectors(DecoderWeights weights) {
  weights = without_gradients(std::move(weights));
  for_each_weight(weights, [](Weight& weight) {
    if (weight.value.dim() == 1) weight.value = weight.value.to(at::kFloat);
  });
  return weights;
}

DecoderWeights with_logit_scale(DecoderWeights weights, const LogitScale& scale) {
  for (LayerWeights& layer : weights.layers) {
    if (auto* attention = std::get_if<AttentionWeights>(&layer.mixer))
      attention->logit_scale = scale;
  }
  return weights;
}

Model load_model(const std::filesystem::path& directory, ParameterStore::Use use,
                 at::ScalarType compute, at::Device device, const Sharing& sharing) {
  const Progress phase("loading " + directory.string());
  Model model;
  model.config = read_model_config(directory);
  if (model.config.int8_weights && use == ParameterStore::Use::kTrained) {
    throw_error("{}: its weights are int8, which cannot be trained; take the model it was made of",
                directory.string());
  }
  const auto files = std::make_shared<WeightFiles>(directory);
  const std::vector<TensorView> tensors = model_tensors(files->tensors(), model.config);
  std::vector<ParameterSpec> specs = decoder_parameters(model.config);
  const std::string from = directory.string();
  const bool is_divided = sharing.ranks->size() > 1 && sharing.shard == Shard::kFull;
  if (use == ParameterStore::Use::kFrozen && device.is_cpu() && !is_divided) {
    model.store = std::make_shared<ParameterStore>(std::move(specs), compute, files, tensors, from);
  } else {
    model.store = std::make_shared<ParameterStore>(std::move(specs), use, compute, device, sharing);
    model.store->load(tensors, from);
  }
  model.weights = bind_decoder(model.config, *model.store);
  return model;
}

void save_model(const std::filesystem::path& directory, const ModelConfig& config,
                const ParameterStore& store, DType dtype) {
  if (config.int8_weights)
    throw_error("{}: a model whose weights are int8 cannot be changed; take the one it was made of",
                directory.string());
  const Progress phase("writing " + directory.string());
  const bool writes = store.ranks().is_first();
  std::vector<at::Tensor> tensors;  // keeps the views' bytes alive
  std::vector<TensorView> views;
  store.visit_values([&](const ParameterSpec& spec, const at::Tensor& value) {
    if (!writes) return;
    // A copy: what ranks have between them is gone with the visit.
    tensors.push_back(at::empty(spec.shape, to_scalar_type(dtype)).copy_(value));
    views.push_back(to_view(spec.name, tensors.back()));
  });
  if (!writes) return;
  std::filesystem::create_directories(directory);
  write_safetensors(directory / "model.safetensors", views);
  write_model_config(directory, config, dtype);
}

}  // namespace halo
