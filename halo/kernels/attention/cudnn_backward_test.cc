// Which rows get attention's backward pass by cuDNN, and in how many calls; what it computes is
// tested beside attention's other forms.
#include "halo/kernels/attention/cudnn_backward.h"

#include "halo/kernels/attention/attention_forms.h"
#include "tests/gpu.h"
#include "tests/op_check.h"

namespace halo {
namespace {

using namespace test;

constexpr double kScale = 0.3;

TEST(Attention, CuDnnsCallsStayWithinTheirMemory) {
  EXPECT_EQ(cudnn_heads_per_call(1, 4096, 16, 8), 16);
  EXPECT_FALSE(cudnn_heads_per_call(12, 512, 16, 8)) << "rows that were not measured";
  EXPECT_EQ(cudnn_heads_per_call(1, 16'384, 16, 8), 4);
  EXPECT_EQ(cudnn_heads_per_call(2, 16'384, 16, 8), 2);
  EXPECT_EQ(cudnn_heads_per_call(1, 16'384, 12, 12), 4);
  EXPECT_FALSE(cudnn_heads_per_call(1, 32'768, 16, 8)) << "4 GiB of two heads that share keys";
}

TEST(AttentionCuda, LongRowsTakeCuDnnsFixedOrder) {
  HALO_NEEDS_GPU();
  const at::Device gpu(at::kCUDA, 0);
  if (compute_capability(at::empty({1}, at::TensorOptions().device(gpu))) != 9)
    GTEST_SKIP() << "attention is cuDNN's on a Hopper alone";
  const test::CudaKernelsSetting all("all");
  const Sequences sequences({0, 4096}, gpu);
  const auto random = [&](int64_t heads, int64_t seed) {
    return random_tensor({4096, heads, 128}, seed, at::kBFloat16).to(gpu);
  };
  const auto q = random(4, 1), k = random(2, 2), v = random(2, 3), d_o = random(4, 5);
  const auto forward = attention_aten(q, k, v, kScale, sequences);
  AttentionSettings settings;
  settings.scale = kScale;
  settings.deterministic = true;
  const auto got = attention_aten_backward(d_o, q, k, v, forward, settings, sequences);
  const auto share = cudnn_heads_per_call(1, 4096, 4, 2);
  ASSERT_TRUE(share);
  const auto want = cudnn_fixed_backward(d_o, q, k, v, forward, kScale, 4096, *share);
  ASSERT_TRUE(want) << "cuDNN has no plan";
  expect_equal("dq", got.q.cpu(), want->q.cpu());
  expect_equal("dk", got.k.cpu(), want->k.cpu());
  expect_equal("dv", got.v.cpu(), want->v.cpu());
}

}  // namespace
}  // namespace halo
