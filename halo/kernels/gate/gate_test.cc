#include "halo/kernels/gate/gate.h"

#include "halo/base/check.h"
#include "tests/gradient_check.h"

namespace halo {
namespace {

using test::check_operation;
using test::OperationCase;
using test::random_tensor;

constexpr double kEps = 1e-5;

at::Tensor plain_norm(const at::Tensor& x, const at::Tensor& w) {
  return w * (x * (x.square().mean(-1, true) + kEps).rsqrt());
}

void check_both(const OperationCase& c) {
  check_operation(c, at::kFloat);
  check_operation(c, at::kBFloat16);
}

OperationCase norm_and_gate(int64_t n, int64_t d) {
  return {
      {random_tensor({n, d}, 1) * 2, random_tensor({n, d}, 2) * 3},
      {random_tensor({d}, 3)},
      [](const auto& x, const auto& w) {
        return std::vector{plain_norm(x[0], w[0]) * at::sigmoid(x[1])};
      },
      [](const auto& x, const auto& w) { return std::vector{norm_gate(x[0], w[0], kEps, x[1])}; }};
}

OperationCase gate_alone(int64_t n, int64_t d) {
  return {{random_tensor({n, d}, 1) * 2, random_tensor({n, d}, 2) * 3},
          {},
          [](const auto& x, const auto&) { return std::vector{x[0] * at::sigmoid(x[1])}; },
          [](const auto& x, const auto&) { return std::vector{norm_gate(x[0], {}, kEps, x[1])}; }};
}

TEST(NormGateCuda, ForwardAndGradients) {
  HALO_NEEDS_GPU();
  for (const auto& [n, d] : {std::pair<int64_t, int64_t>{1, 256}, {6, 50}, {1100, 2048}}) {
    SCOPED_TRACE(std::to_string(n) + " x " + std::to_string(d));
    test::check_on_gpu(norm_and_gate(n, d));
    test::check_on_gpu(gate_alone(n, d));
  }
}

TEST(NormGateCuda, LongSequence) {
  HALO_NEEDS_GPU();
  test::check_on_gpu(norm_and_gate(test::kManyRows, 64));
  test::check_on_gpu(gate_alone(test::kManyRows, 64));
}

TEST(NormGate, ForwardAndGradients) {
  for (const auto& [n, d] : {std::pair<int64_t, int64_t>{1, 256}, {6, 50}, {150, 64}}) {
    SCOPED_TRACE(std::to_string(n) + " x " + std::to_string(d));
    const at::Tensor o = random_tensor({n, d}, 1) * 2;
    const at::Tensor w = random_tensor({d}, 3);
    {
      SCOPED_TRACE("norm and gate");
      check_both(norm_and_gate(n, d));
    }
    {
      SCOPED_TRACE("gate alone");
      check_both(gate_alone(n, d));
    }
    {
      SCOPED_TRACE("norm alone");
      check_both({{o},
                  {w},
                  [](const auto& x, const auto& w) { return std::vector{plain_norm(x[0], w[0])}; },
                  [](const auto& x, const auto& w) {
                    return std::vector{norm_gate(x[0], w[0], kEps, {})};
                  }});
    }
  }
}

TEST(NormGate, NonFiniteGateStaysVisible) {
  const at::Tensor y = norm_gate(at::ones({1, 4}), {}, kEps,
                                 at::tensor({0.0f, std::nanf(""), -1000.0f, 1000.0f}).view({1, 4}));
  EXPECT_EQ(y[0][0].item<float>(), 0.5f);
  EXPECT_TRUE(std::isnan(y[0][1].item<float>()));
  EXPECT_NEAR(y[0][2].item<float>(), 0, 1e-30);
  EXPECT_EQ(y[0][3].item<float>(), 1.0f);
}

TEST(NormGate, RefusesWrongUse) {
  EXPECT_THROW(norm_gate(at::ones({2, 4}), {}, kEps, {}), Error);
  EXPECT_THROW(norm_gate(at::ones({2, 4}), {}, kEps, at::ones({2, 3})), Error);
}

}  // namespace
}  // namespace halo
