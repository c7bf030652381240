#include "halo/kernels/rms_norm/rms_norm.h"

#include "halo/base/check.h"
#include "tests/gradient_check.h"

namespace halo {
namespace {

using namespace test;

constexpr double kEps = 1e-6;

at::Tensor plain_norm(const at::Tensor& x, const at::Tensor& w) {
  return w * (x * (x.square().mean(-1, true) + kEps).rsqrt());
}

OperationCase norm_case(int64_t n, int64_t d) {
  return {{random_tensor({n, d}, 1) * 3},
          {random_tensor({d}, 2)},
          [](const auto& x, const auto& w) { return std::vector{plain_norm(x[0], w[0])}; },
          [](const auto& x, const auto& w) { return std::vector{rms_norm(x[0], w[0], kEps)}; }};
}

OperationCase residual_case(int64_t n, int64_t d) {
  return {{random_tensor({n, d}, 1), random_tensor({n, d}, 2)},
          {random_tensor({d}, 3)},
          [](const auto& x, const auto& w) {
            const at::Tensor sum = x[0] + x[1];
            return std::vector{sum, plain_norm(sum, w[0])};
          },
          [](const auto& x, const auto& w) {
            const auto [sum, normed] = add_rms_norm(x[0], x[1], w[0], kEps);
            return std::vector{sum, normed};
          }};
}

TEST(RmsNorm, ForwardAndGradients) {
  for (const auto& [n, d] : {std::pair<int64_t, int64_t>{1, 192}, {7, 50}, {200, 96}, {3, 257}}) {
    SCOPED_TRACE(std::to_string(n) + " x " + std::to_string(d));
    const OperationCase c = norm_case(n, d);
    check_operation(c, at::kFloat);
    check_operation(c, at::kBFloat16);
  }
}

TEST(RmsNorm, ResidualStep) {
  for (const auto& [n, d] : {std::pair<int64_t, int64_t>{1, 192}, {7, 50}, {200, 96}}) {
    SCOPED_TRACE(std::to_string(n) + " x " + std::to_string(d));
    const OperationCase c = residual_case(n, d);
    check_operation(c, at::kFloat);
    check_operation(c, at::kBFloat16);
  }
}

// Wide and single accesses, one warp and many, more rows than blocks in backward.
TEST(RmsNormCuda, ForwardAndGradients) {
  HALO_NEEDS_GPU();
  for (const auto& [n, d] : {std::pair<int64_t, int64_t>{1, 192},
                             {7, 50},
                             {3, 257},
                             {1300, 2048},
                             {5, 8192},
                             {2, 8200}}) {
    SCOPED_TRACE(std::to_string(n) + " x " + std::to_string(d));
    test::check_on_gpu(norm_case(n, d));
    test::check_on_gpu(residual_case(n, d));
  }
}

TEST(RmsNormCuda, LongSequence) {
  HALO_NEEDS_GPU();
  test::check_on_gpu(norm_case(test::kManyRows, 64));
  test::check_on_gpu(residual_case(test::kManyRows, 64));
}

TEST(RmsNormCuda, RoundsBeforeTheWeight) {
  HALO_NEEDS_GPU();
  const test::CudaKernelsSetting all("all");
  const at::Tensor x = random_tensor({40, 64}, 1, at::kBFloat16).cuda();
  const at::Tensor w = random_tensor({64}, 2, at::kBFloat16).cuda();
  const at::Tensor wide = x.to(at::kFloat);
  const at::Tensor xhat = wide * (wide.square().mean(-1, true) + kEps).rsqrt();
  const at::Tensor got = rms_norm(x, {w, {}}, kEps), want = w * xhat.to(at::kBFloat16);
  // A mean that is summed in another order may round xhat the other way, in few places.
  EXPECT_LT(got.ne(want).sum().item<int64_t>(), 8);
}

TEST(RmsNorm, ResidualStepUsedInPart) {
  const at::Tensor values = random_tensor({5, 40}, 1), delta = random_tensor({5, 40}, 2);
  const Weight w = test::trained_weight(random_tensor({40}, 3), at::kFloat);
  const at::Tensor x = test::leaf(values, at::kFloat);
  add_rms_norm(x, delta, w, kEps).first.sum().backward();
  test::expect_equal("only the sum", x.grad(), at::ones_like(x));
  test::expect_equal("weight", w.grad, at::zeros({40}));

  const at::Tensor y = test::leaf(values, at::kFloat), z = test::leaf(values, at::kFloat);
  add_rms_norm(y, delta, w, kEps).second.sum().backward();
  const Weight twin = test::trained_weight(w.value, at::kFloat);
  rms_norm(z + delta, twin, kEps).sum().backward();
  test::expect_equal("only the norm", y.grad(), z.grad());
  test::expect_equal("weight", w.grad, twin.grad);
}

TEST(RmsNorm, GradientsAddUp) {
  const at::Tensor x = random_tensor({9, 40}, 1);
  const Weight w = test::trained_weight(random_tensor({40}, 2), at::kFloat);
  rms_norm(x, w, kEps).sum().backward();
  const at::Tensor once = w.grad.clone();
  rms_norm(x, w, kEps).sum().backward();
  test::expect_equal("twice", w.grad, once * 2);
}

// The order that matters in bf16: the normed value is rounded before the weight multiplies it.
TEST(RmsNorm, RoundsBeforeTheWeight) {
  const at::Tensor x = random_tensor({4, 64}, 1, at::kBFloat16);
  const at::Tensor w = random_tensor({64}, 2, at::kBFloat16);
  const at::Tensor wide = x.to(at::kFloat);
  const at::Tensor xhat = wide * (wide.square().mean(-1, true) + kEps).rsqrt();
  test::expect_equal("order", rms_norm(x, {w, {}}, kEps), w * xhat.to(at::kBFloat16));
}

TEST(RmsNorm, NonFiniteStaysVisible) {
  at::Tensor x = random_tensor({2, 32}, 1);
  x[1][5] = std::nan("");
  const at::Tensor y = rms_norm(x, {at::ones({32}), {}}, kEps);
  EXPECT_FALSE(y[0].isnan().any().item<bool>());
  EXPECT_TRUE(y[1].isnan().all().item<bool>());
}

TEST(RmsNorm, RefusesWrongShapes) {
  EXPECT_THROW(rms_norm(at::ones({2, 3}), {at::ones({4}), {}}, kEps), Error);
  EXPECT_THROW(rms_norm(at::ones({2, 3}), {at::ones({3}, at::kBFloat16), {}}, kEps), Error);
  EXPECT_THROW(add_rms_norm(at::ones({2, 3}), at::ones({1, 3}), {at::ones({3}), {}}, kEps), Error);
}

}  // namespace
}  // namespace halo
