// export_models OUT: small random HypeNets over every switch of the configuration, OUT/NN/model,
// each with the token ids it is compared on, OUT/NN/ids.safetensors; and such ids for a student of
// demo/teacher, OUT/demo/ids.safetensors. The same every time.
#include <array>
#include <cmath>
#include <filesystem>
#include <iostream>

#include "ATen/ATen.h"
#include "halo/base/check.h"
#include "halo/base/random.h"
#include "halo/formats/safetensors.h"
#include "halo/model/decoder.h"
#include "halo/model/model_testing.h"

namespace halo {
namespace {

namespace fs = std::filesystem;

constexpr uint64_t kModels = 24;
constexpr int64_t kDemoVocabulary = 2048;

// Draw `index` of model `model` among n: every n models in a row see all of them, in an order that
// differs from switch to switch, so that no two switches go together.
int64_t draw(uint64_t model, uint64_t index, int64_t n) {
  const Random random(7, "export.switch", index * kModels + model / static_cast<uint64_t>(n));
  return random.permutation(n)[model % static_cast<uint64_t>(n)];
}

RopeScaling scaling_of(int64_t choice) {
  switch (choice) {
    case 1:
      return {.type = RopeScaling::Type::kLinear, .factor = 4};
    case 2:
      return {.type = RopeScaling::Type::kLlama3,
              .factor = 8,
              .low_freq_factor = 1,
              .high_freq_factor = 4,
              .original_max_position_embeddings = 64};
    case 3:
      return {
          .type = RopeScaling::Type::kYarn, .factor = 4, .original_max_position_embeddings = 128};
    default:
      return {};
  }
}

LogitScale logit_scale_of(int64_t choice) {
  if (choice == 1) return {.kind = LogitScale::Kind::kConstant, .constant = 1.25};
  if (choice == 2) return {.kind = LogitScale::Kind::kLogPosition, .a = 50};
  return {};
}

ModelConfig config_of(uint64_t model) {
  uint64_t index = 0;
  const auto one_of = [&](int64_t n) { return draw(model, index++, n); };
  const auto flag = [&] { return one_of(2) == 1; };
  ModelConfig c;
  c.model_type = ModelType::kHypenet;
  c.vocab_size = 96 + 16 * one_of(3);
  c.hidden_size = 32 + 8 * one_of(2);
  c.intermediate_size = 48;
  c.num_layers = 2 + one_of(3);
  c.num_heads = std::array<int64_t, 3>{4, 6, 2}[one_of(3)];
  c.num_kv_heads = flag() ? 2 : c.num_heads;
  c.head_dim = flag() ? 16 : 8;
  c.rope_theta = flag() ? 1e6 : 1e4;
  c.rope_scaling = scaling_of(one_of(4));
  c.rms_norm_eps = flag() ? 1e-6 : 1e-5;
  c.tie_word_embeddings = flag();
  c.attention_bias = one_of(3) == 1;
  c.attention_output_bias = c.attention_bias;
  c.max_position_embeddings = 4096;
  c.bos_token_id = 0;
  c.eos_token_ids = flag() ? std::vector<int64_t>{1} : std::vector<int64_t>{1, 2};
  c.attn_use_rope = one_of(3) == 1;
  c.attn_use_output_gate = flag();
  c.attn_use_qk_norm = one_of(3) != 1;
  c.attn_logits_scaling = logit_scale_of(one_of(3));
  c.lightning_heads = std::array<int64_t, 3>{4, 3, 8}[one_of(3)];
  c.lightning_kv_heads =
      c.lightning_heads % 2 == 0 && flag() ? c.lightning_heads / 2 : c.lightning_heads;
  c.lightning_head_dim = flag() ? c.head_dim : 4;
  c.lightning_scale = static_cast<LightningScale>(one_of(3));
  c.lightning_use_rope = one_of(3) != 1;
  c.lightning_use_qk_norm = flag();
  c.lightning_use_output_norm = flag();
  c.lightning_use_output_gate = flag();
  c.expand_kv_proj = flag();
  for (int64_t layer = 0; layer < c.num_layers; ++layer)
    c.mixer_types.push_back(flag() ? MixerType::kAttention : MixerType::kLightning);
  // The first two models have one mixer alone; the others both.
  if (model < 2) {
    c.mixer_types.assign(c.num_layers, static_cast<MixerType>(model));
  } else {
    c.mixer_types.front() = static_cast<MixerType>(model % 2);
    c.mixer_types.back() = static_cast<MixerType>(1 - model % 2);
  }
  return c;
}

void write_ids(const fs::path& path, int64_t vocab_size, int64_t length, uint64_t seed) {
  at::Generator generator = at::make_generator<at::CPUGeneratorImpl>(seed);
  const at::Tensor ids = at::randint(vocab_size, {2, length}, generator, at::kLong);
  const at::Tensor prompts = at::randint(vocab_size, {2, 17}, generator, at::kLong);
  const std::vector<TensorView> views = {to_view("input_ids", ids), to_view("prompt_ids", prompts)};
  write_safetensors(path, views);
}

void run(const fs::path& out) {
  for (uint64_t model = 0; model < kModels; ++model) {
    const fs::path folder = out / fmt::format("{:02}", model);
    const ModelConfig config = config_of(model);
    ParameterStore store(decoder_parameters(config), ParameterStore::Use::kFrozen, at::kFloat,
                         at::kCPU);
    test::fill_random(store, 1000 + model);
    store.refresh_compute();
    save_model(folder / "model", config, store, model % 3 == 0 ? DType::kBF16 : DType::kF32);
    // Around the chunk of 128 tokens that the Python code works on, and beyond two of them.
    const int64_t length = std::array<int64_t, 4>{40, 128, 129, 300}[model % 4];
    write_ids(folder / "ids.safetensors", config.vocab_size, length, 2000 + model);
  }
  fs::create_directories(out / "demo");
  write_ids(out / "demo" / "ids.safetensors", kDemoVocabulary, 500, 2000 + kModels);
}

}  // namespace
}  // namespace halo

int main(int argc, char** argv) {
  if (argc != 2) {
    std::cerr << "usage: export_models OUT\n";
    return 2;
  }
  halo::run(argv[1]);
  return 0;
}
