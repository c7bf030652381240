#include "halo/stages/losses.h"

#include <gtest/gtest.h>

#include "ATen/ATen.h"
#include "halo/engine/test_model.h"
#include "halo/kernels/linear_kl/linear_kl.h"
#include "tests/op_check.h"

namespace halo {
namespace {

// data.answer_weight reaches stage 2: each token's KL counts with its weight.
TEST(KlStep, WeighsEachToken) {
  const ModelConfig config = test::hybrid_config();
  const auto teacher = test::random_model(config);
  ParameterStore store(decoder_parameters(config), ParameterStore::Use::kTrained, at::kFloat,
                       at::kCPU);
  for (const ParameterSpec& spec : store.specs()) {
    store.value(spec.name).copy_(testing::random_tensor(spec.shape, 7) * 0.2);
  }
  const DecoderWeights student = bind_decoder(config, store);
  const Machine machine;
  TrainBatch data;
  data.offsets = {0, 40};
  data.tokens = at::tensor(test::random_tokens(40, 1), at::kLong);
  data.weights = at::arange(40, at::kFloat).remainder(3);
  const Batch batch = to_batch(data, machine);
  const at::Tensor kl = token_kl(decode(student, batch), student.head.value,
                                 decode(*teacher, batch), teacher->head.value);
  const double want = (kl * data.weights).sum().item<double>() / 40;
  const double got = kl_step(student, *teacher, machine)(data, 40).item<double>();
  EXPECT_NEAR(got, want, 1e-5 * want);
  EXPECT_GT(std::abs(want - kl.mean().item<double>()), 1e-3 * want);  // weights make a difference
}

}  // namespace
}  // namespace halo
