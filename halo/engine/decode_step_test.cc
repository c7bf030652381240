#include "halo/model/decode_step.h"

#include <gtest/gtest.h>

#include <optional>

#include "halo/engine/engine.h"
#include "halo/model/model_testing.h"
#include "halo/runtime/graph.h"
#include "tests/gpu.h"
#include "tests/op_check.h"

namespace halo {
namespace {

constexpr int64_t kBlockSize = 16, kBlocks = 12, kSlots = 5;
constexpr int64_t kInt8BlockSize = 32;  // the least that the kernel takes

// Sizes that the kernels take.
ModelConfig wide(ModelConfig config) {
  config.vocab_size = 64;
  config.hidden_size = 128;
  config.intermediate_size = 192;
  config.num_heads = 4;
  config.head_dim = 64;
  if (config.model_type == ModelType::kHypenet) config.num_kv_heads = 1;  // 4 tokens in two calls
  if (config.model_type == ModelType::kHypenet) {
    config.lightning_heads = config.lightning_kv_heads = 2;
    config.lightning_head_dim = 64;
  }
  return config;
}

ModelConfig in_int8(ModelConfig config) {
  config.int8_weights = true;
  config.tie_word_embeddings = false;
  return config;
}

DecoderWeights on(const DecoderWeights& weights, at::Device device, at::ScalarType dtype) {
  DecoderWeights out = weights;
  const auto move = [&](Weight& w) {
    if (!w.defined()) return;
    w.value = w.value.to(device, w.scale.defined() ? at::kChar : dtype);
    if (w.scale.defined()) w.scale = w.scale.to(device);
  };
  for (Weight* w : {&out.embedding, &out.norm, &out.head}) move(*w);
  for (LayerWeights& layer : out.layers) {
    for (Weight* w : {&layer.input_norm, &layer.post_norm, &layer.gate_up, &layer.down}) move(*w);
    if (auto* a = std::get_if<AttentionWeights>(&layer.mixer)) {
      for (Weight* w : {&a->qkvg, &a->q_norm, &a->k_norm, &a->o_proj}) move(*w);
    } else {
      auto& l = std::get<LightningWeights>(layer.mixer);
      for (Weight* w : {&l.qkvz, &l.q_norm, &l.k_norm, &l.o_norm, &l.o_proj}) move(*w);
    }
  }
  return out;
}

std::vector<LayerState> empty_layers(const DecoderWeights& weights, bool int8_keys = false) {
  std::vector<LayerState> layers(weights.layers.size());
  const auto options = weights.embedding.value.options();
  const int64_t block_size = int8_keys ? kInt8BlockSize : kBlockSize;
  for (size_t i = 0; i < layers.size(); ++i) {
    if (const auto* a = std::get_if<AttentionWeights>(&weights.layers[i].mixer)) {
      layers[i].keys = at::full({kBlocks, block_size, a->kv_heads, a->head_dim},
                                std::numeric_limits<double>::quiet_NaN(), options);
      if (int8_keys) {
        layers[i].keys = at::zeros(layers[i].keys.sizes(), options.dtype(at::kChar));
        layers[i].key_scales =
            at::full({kBlocks, a->kv_heads, block_size}, std::numeric_limits<double>::quiet_NaN(),
                     options.dtype(at::kFloat));
        layers[i].value_scales = layers[i].key_scales.clone();
      }
      layers[i].values = layers[i].keys.clone();
    } else {
      const auto& l = std::get<LightningWeights>(weights.layers[i].mixer);
      layers[i].recurrent =
          at::zeros({kSlots, l.heads, l.head_dim, l.head_dim}, options.dtype(at::kFloat));
    }
  }
  return layers;
}

// Three sequences of 40, 0 and 23 tokens; the last joins later.
const std::vector<std::vector<int64_t>> kTokens{
    test::random_tokens(40, 1), {}, test::random_tokens(23, 2)};
constexpr int64_t kJoins = 17;

// Of sequence s, the place of its first token in step n of so many tokens each, if it takes part.
std::optional<int64_t> place_of(size_t s, int64_t n, int64_t each) {
  const int64_t at = (s == 0 ? n : n - kJoins / each) * each;
  if (at < 0 || at + each > std::ssize(kTokens[s])) return {};
  return at;
}

// What a step reads before its launch number n.
void fill(DecodeState& state, int64_t n, int64_t each) {
  std::vector<int64_t> tokens, positions, lengths, slots;
  for (size_t s = 0; s < kTokens.size(); ++s) {
    const auto at = place_of(s, n, each);
    for (int64_t i = 0; i < each; ++i) {
      tokens.push_back(at ? kTokens[s][*at + i] : 0);
      positions.push_back(at ? *at + i : 0);
    }
    lengths.push_back(at ? *at + each : 0);
    slots.push_back(at ? (s == 0 ? 4 : 1) : -1);
  }
  const auto put = [](at::Tensor to, const std::vector<int64_t>& values) {
    to.copy_(at::tensor(values, at::kLong));
  };
  put(state.tokens, tokens);
  put(state.positions, positions);
  put(state.lengths, lengths);
  put(state.slots, slots);
  state.block_table.copy_(at::tensor({7, 2, 9, 0, 0, 0, 1, 11, 0}, at::kInt).view({3, 3}));
}

// Logits after every token of both sequences that took part, [40 + 23 or less, V]; `launch` runs a
// step and returns its logits.
at::Tensor run(DecodeState& state, const std::function<at::Tensor()>& launch) {
  const int64_t each = state.tokens.numel() / state.lengths.numel();
  std::vector<at::Tensor> rows[3];
  for (int64_t n = 0; n < 40 / each; ++n) {
    fill(state, n, each);
    const at::Tensor logits = launch().to(at::kCPU, /*non_blocking=*/false, /*copy=*/true);
    for (const size_t s : {0, 2}) {
      if (place_of(s, n, each)) {
        rows[s].push_back(logits.narrow(0, static_cast<int64_t>(s) * each, each));
      }
    }
  }
  return at::cat({at::cat(rows[0]), at::cat(rows[2])});
}

// The same of steps that are launches of one recording.
at::Tensor run_recorded(const DecoderWeights& weights, DecodeState& state,
                        const std::vector<LayerState>& layers) {
  at::Tensor out;
  const GraphMemory memory;
  const CudaGraph graph(at::Device(at::kCUDA, 0), memory,
                        [&] { out = decode_step(weights, state, layers, Kernels::kFast); });
  return run(state, [&] {
    graph.launch();
    return out;
  });
}

at::Tensor plain(const DecoderWeights& weights, Kernels kernels) {
  std::vector<at::Tensor> rows;
  for (const auto& tokens : kTokens) {
    if (tokens.empty()) continue;
    rows.push_back(logits(weights, test::plain_decode(weights, tokens, kernels), kernels));
  }
  return at::cat(rows);
}

TEST(DecodeStep, StepByStepEqualsOneGo) {
  for (const ModelConfig& config :
       {test::transformer_config(), test::hybrid_config(), in_int8(test::hybrid_config())}) {
    const auto weights = test::random_model(config);
    for (const auto kernels : {Kernels::kReference, Kernels::kFast}) {
      for (const int64_t each : {1, 4, 5}) {  // 5: attention in two calls
        const auto layers = empty_layers(*weights);
        DecodeState state = make_decode_state(*weights, 3, 3, each);
        const at::Tensor got =
            run(state, [&] { return decode_step(*weights, state, layers, kernels); });
        const at::Tensor want = plain(*weights, kernels).narrow(0, 0, got.size(0));
        if (kernels == Kernels::kReference) {
          test::expect_equal("logits", got, want);
        } else {
          EXPECT_LE(test::relative_error(got, want), 5e-5);
        }
      }
    }
  }
}

// In one go by an engine, which cuts nothing. On a CPU it computes in fp32.
at::Tensor plain_int8_keys(const DecoderWeights& weights, Kernels kernels) {
  Engine engine(std::make_shared<const DecoderWeights>(weights),
                {.kernels = kernels, .block_size = kInt8BlockSize, .kv_type = KvType::kInt8});
  std::vector<at::Tensor> rows;
  for (const auto& tokens : kTokens) {
    if (tokens.empty()) continue;
    rows.push_back(
        engine.logits(engine.extend({engine.create()}, {tokens}, Engine::Rows::kAll)).cpu());
  }
  return at::cat(rows);
}

// Called steps, in the weights' own type.
at::Tensor steps_with_int8_keys(const DecoderWeights& weights, Kernels kernels, int64_t each) {
  const auto layers = empty_layers(weights, true);
  DecodeState state = make_decode_state(weights, 3, 3, each);
  return run(state, [&] { return decode_step(weights, state, layers, kernels); });
}

// What rounding keys and values to int8 does to logits at most, relative to their rms. The largest
// of a head's d numbers is at most sqrt(d) times their rms, and the error is uniform in +-1/254 of
// it; a layer's scores suffer it once and its values once, and norms hand it on as it is.
double most_of_int8_error(const DecoderWeights& weights) {
  double sum = 0;
  for (const LayerWeights& layer : weights.layers) {
    const auto* a = std::get_if<AttentionWeights>(&layer.mixer);
    if (a) sum += 2 * std::sqrt(static_cast<double>(a->head_dim)) / (127 * std::sqrt(12));
  }
  return sum;
}

TEST(DecodeStep, WithKeysInInt8StepByStepEqualsOneGo) {
  for (const ModelConfig& config : {test::transformer_config(), test::hybrid_config()}) {
    const auto weights = test::random_model(config);
    for (const auto kernels : {Kernels::kReference, Kernels::kFast}) {
      const at::Tensor got = steps_with_int8_keys(*weights, kernels, 4);
      const at::Tensor want = plain_int8_keys(*weights, kernels).narrow(0, 0, got.size(0));
      const at::Tensor exact = plain(*weights, kernels).narrow(0, 0, got.size(0));
      if (kernels == Kernels::kReference) {
        test::expect_equal("logits", got, want);
      } else {
        // A key that lies between two integers goes to either, so the two agree as two roundings
        // of the same numbers do: each is as far from those as the other.
        test::expect_close("logits", got, exact, want);
      }
      EXPECT_LE(test::rms_error(got, exact), most_of_int8_error(*weights) * test::rms(exact));
      EXPECT_GE(test::rms_error(got, exact), 1e-4 * test::rms(exact));  // int8 it is
    }
  }
}

// One recording serves every length, sequences that come and go, and has the bits of plain calls.
TEST(DecodeStepCuda, ARecordedStepEqualsOneGo) {
  HALO_NEEDS_GPU();
  const test::CudaKernelsSetting all("all");
  for (const ModelConfig& config : {wide(test::transformer_config()), wide(test::hybrid_config()),
                                    in_int8(wide(test::hybrid_config()))}) {
    const auto weights = test::random_model(config);
    const DecoderWeights exact = on(*weights, at::kCPU, at::kBFloat16),
                         on_gpu = on(exact, at::kCUDA, at::kBFloat16);
    const at::Tensor want = plain(on(exact, at::kCPU, at::kFloat), Kernels::kFast),
                     same_type = plain(exact, Kernels::kFast);
    for (int64_t each = 1; each <= kMostStepTokens; ++each) {
      DecodeState state = make_decode_state(on_gpu, 3, 3, each);
      const auto layers = empty_layers(on_gpu);
      const at::Tensor called =
          run(state, [&] { return decode_step(on_gpu, state, layers, Kernels::kFast); });
      // 40 tokens do not divide by 3.
      const int64_t first = 40 / each * each, second = called.size(0) - first;
      const auto rows = [&](const at::Tensor& all) {
        return at::cat({all.narrow(0, 0, first), all.narrow(0, 40, second)});
      };
      test::expect_close("called", called, rows(want), rows(same_type));

      test::expect_equal("recorded", run_recorded(on_gpu, state, empty_layers(on_gpu)), called);
    }
  }
}

// Keys in int8: a recorded step has the bits of plain calls, and the numbers of the CPU's.
TEST(DecodeStepCuda, ARecordedStepWithKeysInInt8EqualsOneGo) {
  HALO_NEEDS_GPU();
  const test::CudaKernelsSetting all("all");
  for (const ModelConfig& config :
       {wide(test::transformer_config()), wide(test::hybrid_config())}) {
    const auto weights = test::random_model(config);
    const DecoderWeights exact = on(*weights, at::kCPU, at::kBFloat16),
                         on_gpu = on(exact, at::kCUDA, at::kBFloat16);
    ASSERT_TRUE(can_record_step(on_gpu, kInt8BlockSize, true));
    // What bf16 moves a key by may take it to the next integer, so bf16 is the measure.
    const at::Tensor want = plain_int8_keys(on(exact, at::kCPU, at::kFloat), Kernels::kFast);
    const at::Tensor same_type = steps_with_int8_keys(exact, Kernels::kFast, 1);
    // One state for both: what it holds was sent to the device before a step is recorded.
    DecodeState state = make_decode_state(on_gpu, 3, 3);
    const auto layers = empty_layers(on_gpu, true);
    const at::Tensor called =
        run(state, [&] { return decode_step(on_gpu, state, layers, Kernels::kFast); });
    test::expect_close("called", called, want, same_type);
    test::expect_equal("recorded", run_recorded(on_gpu, state, empty_layers(on_gpu, true)), called);
    // Through an engine, which records its own, and what is not recorded.
    Engine engine(std::make_shared<const DecoderWeights>(on_gpu),
                  {.block_size = kInt8BlockSize, .kv_type = KvType::kInt8});
    const int64_t sequence = engine.create();
    engine.extend({sequence}, {{kTokens[0].begin(), kTokens[0].begin() + 20}}, Engine::Rows::kLast);
    std::vector<at::Tensor> rows;
    for (int64_t t = 20; t < 40; ++t)
      rows.push_back(engine.advance({sequence}, {{kTokens[0][t]}}).cpu()[0].clone());
    test::expect_close("engine", at::stack(rows), want.slice(0, 20, 40),
                       same_type.slice(0, 20, 40));
  }
}

// Through an engine, whose pools move as sequences grow.
TEST(DecodeStepCuda, AnEnginesStepsEqualOneGo) {
  HALO_NEEDS_GPU();
  const test::CudaKernelsSetting all("all");
  for (const ModelConfig& config : {wide(test::transformer_config()), wide(test::hybrid_config()),
                                    in_int8(wide(test::hybrid_config()))}) {
    const auto weights = test::random_model(config);
    const DecoderWeights exact = on(*weights, at::kCPU, at::kBFloat16);
    Engine engine(std::make_shared<const DecoderWeights>(on(exact, at::kCUDA, at::kBFloat16)),
                  {.block_size = kBlockSize});
    ASSERT_TRUE(can_record_step(engine.weights(), kBlockSize, false));
    const int64_t first = engine.create();
    engine.extend({first}, {{kTokens[0].begin(), kTokens[0].begin() + 20}}, Engine::Rows::kAll);
    const int64_t second = engine.create();
    std::vector<at::Tensor> rows[2];
    for (size_t n = 0; n < 20; ++n) {
      const at::Tensor got =
          engine.advance({first, second}, {{kTokens[0][20 + n]}, {kTokens[2][n]}}).cpu();
      rows[0].push_back(got[0].clone());
      rows[1].push_back(got[1].clone());
    }
    const at::Tensor want = plain(on(exact, at::kCPU, at::kFloat), Kernels::kFast),
                     same_type = plain(exact, Kernels::kFast);
    test::expect_close("first", at::stack(rows[0]), want.slice(0, 20, 40),
                       same_type.slice(0, 20, 40));
    test::expect_close("second", at::stack(rows[1]), want.slice(0, 40, 60),
                       same_type.slice(0, 40, 60));
  }
}

// Several tokens a step, with a moment to go back to between them: as one token after the other.
TEST(DecodeStepCuda, AnEngineGoesBackAndOn) {
  HALO_NEEDS_GPU();
  const test::CudaKernelsSetting all("all");
  const auto weights = test::random_model(wide(test::hybrid_config()));
  Engine engine(std::make_shared<const DecoderWeights>(on(*weights, at::kCUDA, at::kBFloat16)),
                {.block_size = kBlockSize});
  const int64_t each = engine.step_tokens();
  ASSERT_EQ(each, kMostStepTokens);
  const std::vector<int64_t>& tokens = kTokens[0];
  const int64_t plain = engine.create(), other = engine.create();
  std::vector<at::Tensor> want;
  for (const int64_t token : tokens) want.push_back(engine.advance({plain}, {{token}}).cpu());
  for (int64_t at = 0; at + each <= std::ssize(tokens); at += each) {
    Engine::Moment before(engine, other);
    engine.advance({other}, {std::vector<int64_t>(each, 3)});
    before.exchange();
    const at::Tensor got =
        engine.advance({other}, {{tokens.begin() + at, tokens.begin() + at + each}}, {each});
    for (int64_t i = 0; i < each; ++i) {
      EXPECT_LE(test::relative_error(got[i].cpu(), want[at + i][0]), 2e-2) << at + i;
    }
  }
}

}  // namespace
}  // namespace halo
