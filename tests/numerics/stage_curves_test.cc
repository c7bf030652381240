// Ten steps of each stage in fp32: a GPU with our kernels against the reference kernels of the CPU,
// at the head sizes of real models and on packed sequences longer than a chunk.
#include <gtest/gtest.h>

#include <cmath>
#include <iostream>

#include "ATen/ATen.h"
#include "halo/base/json.h"
#include "halo/bench/step_profile.h"
#include "halo/engine/test_model.h"
#include "halo/kernels/linear_cross_entropy/linear_cross_entropy.h"
#include "halo/stages/losses.h"
#include "halo/stages/transfer.h"
#include "halo/train/optimizer.h"
#include "tests/gpu.h"

namespace halo {
namespace {

constexpr double kBound = 1e-4;  // relative, of losses and gradient norms: the golden curves'
constexpr int64_t kVocabulary = 301;

ModelConfig student_of(int64_t head_dim) {
  ModelConfig c = test::hybrid_config();
  c.vocab_size = kVocabulary;
  c.hidden_size = 2 * head_dim;
  c.intermediate_size = 3 * head_dim;
  c.num_heads = c.lightning_heads = c.lightning_kv_heads = 2;
  c.num_kv_heads = 1;
  c.head_dim = c.lightning_head_dim = head_dim;
  c.attn_logits_scaling = {};  // off in training
  return c;
}

// The same values on any device.
std::shared_ptr<ParameterStore> random_store(const std::vector<ParameterSpec>& specs,
                                             ParameterStore::Use use, at::Device device,
                                             uint64_t seed) {
  at::NoGradGuard no_grad;
  auto store = std::make_shared<ParameterStore>(specs, use, at::kFloat, device);
  at::Generator generator = at::make_generator<at::CPUGeneratorImpl>(seed);
  for (const ParameterSpec& spec : specs) {
    at::Tensor value = at::empty(spec.shape).normal_(0, 1, generator);
    value = spec.shape.size() == 1 ? value * 0.1 + 1
                                   : value / std::sqrt(static_cast<double>(spec.shape[1]));
    store->value(spec.name).copy_(value);
  }
  return store;
}

TrainBatch random_batch(uint64_t seed) {
  TrainBatch batch;
  batch.offsets = {0, 517, 520, 1230, 1363};
  batch.rows = 4;
  const std::vector<int64_t> ids = test::random_tokens(batch.offsets.back(), seed, kVocabulary);
  batch.tokens = at::tensor(ids, at::kLong);
  batch.targets = batch.tokens.roll(-1);
  for (size_t s = 1; s < batch.offsets.size(); ++s) {
    batch.targets[batch.offsets[s] - 1] = kIgnoreTarget;
  }
  batch.weights = at::ones({batch.tokens.numel()});
  return batch;
}

struct Curve {
  std::vector<double> losses, norms;
};

Curve train(int stage, int64_t head_dim, const Machine& machine) {
  const ModelConfig student = student_of(head_dim), teacher = teacher_config_of(student);
  const auto frozen =
      random_store(decoder_parameters(teacher), ParameterStore::Use::kFrozen, machine.device, 1);
  const DecoderWeights teacher_weights = bind_decoder(teacher, *frozen);
  const ModelConfig lightning = all_lightning(student);
  const auto specs = stage == 1 ? all_mixer_parameters(lightning) : decoder_parameters(student);
  const auto store = random_store(specs, ParameterStore::Use::kTrained, machine.device, 2);
  const ForwardBackward step =
      stage == 1   ? align_step(bind_mixers(lightning, *store), teacher_weights, machine)
      : stage == 2 ? kl_step(bind_decoder(student, *store), teacher_weights, machine)
                   : cross_entropy_step(bind_decoder(student, *store), machine);
  const TrainRecipe recipe;
  Optimizer optimizer(*store, recipe);
  Curve curve;
  for (int64_t i = 1; i <= 10; ++i) {
    const TrainBatch batch = random_batch(static_cast<uint64_t>(i));
    store->zero_grad();
    const at::Tensor loss = step(batch, stage == 3 ? count_targets(batch) : count_tokens(batch))[0];
    curve.norms.push_back(optimizer.step(i, 1e-3, loss).norm.item<double>());
    curve.losses.push_back(loss.item<double>());
  }
  return curve;
}

TEST(StageCurvesCuda, TenStepsEqualTheReference) {
  HALO_NEEDS_GPU();
  for (const int64_t head_dim : {64, 128}) {
    for (int stage = 1; stage <= 3; ++stage) {
      SCOPED_TRACE("stage " + std::to_string(stage) + ", head size " + std::to_string(head_dim));
      Machine reference, gpu;
      reference.form = KernelForm::kReference;
      gpu.device = at::Device(at::kCUDA, 0);
      const Curve want = train(stage, head_dim, reference);
      const Curve got = train(stage, head_dim, gpu), again = train(stage, head_dim, gpu);
      double worst = 0;
      for (size_t i = 0; i < want.losses.size(); ++i) {
        EXPECT_NEAR(got.losses[i], want.losses[i], kBound * want.losses[i]) << "step " << i + 1;
        EXPECT_NEAR(got.norms[i], want.norms[i], kBound * want.norms[i]) << "step " << i + 1;
        worst = std::max({worst, std::abs(got.losses[i] / want.losses[i] - 1),
                          std::abs(got.norms[i] / want.norms[i] - 1)});
      }
      EXPECT_EQ(again.losses, got.losses) << "the same bits twice";
      EXPECT_EQ(again.norms, got.norms) << "the same bits twice";
      gpu.activation_checkpointing = true;
      const Curve recomputed = train(stage, head_dim, gpu);
      EXPECT_EQ(recomputed.losses, got.losses) << "the same bits with activation checkpointing";
      EXPECT_EQ(recomputed.norms, got.norms) << "the same bits with activation checkpointing";
      std::cout << "stage " << stage << ", head size " << head_dim << ": loss "
                << want.losses.front() << " to " << want.losses.back() << ", worst difference "
                << worst << "\n";
    }
  }
}

TEST(StepProfileCuda, NamesTheKernelsOfAStep) {
  HALO_NEEDS_GPU();
  Machine gpu;
  gpu.device = at::Device(at::kCUDA, 0);
  for (int stage = 1; stage <= 3; ++stage) {
    const json::object profile = profile_step([&] { train(stage, 128, gpu); });
    std::string names;
    for (const json::value& kernel : profile.at("longest").as_array()) {
      names += "  " + std::string(kernel.as_object().at("name").as_string()) + "\n";
    }
    EXPECT_NE(names.find("halo::lightning"), std::string::npos);
    std::cout << "stage " << stage << ", the longest kernels first:\n" << names;
  }
}

}  // namespace
}  // namespace halo
