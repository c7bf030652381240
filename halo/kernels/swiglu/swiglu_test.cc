#include "halo/kernels/swiglu/swiglu.h"

#include "halo/base/check.h"
#include "tests/gradient_check.h"

namespace halo {
namespace {

using test::check_operation;
using test::OperationCase;
using test::random_tensor;

OperationCase swiglu_case(int64_t n, int64_t f) {
  return {{random_tensor({n, 2 * f}, 1) * 4},
          {},
          [](const auto& x, const auto&) {
            const auto halves = x[0].chunk(2, 1);
            return std::vector{halves[0] * at::sigmoid(halves[0]) * halves[1]};
          },
          [](const auto& x, const auto&) { return std::vector{swiglu(x[0])}; }};
}

TEST(Swiglu, ForwardAndGradients) {
  for (const auto& [n, f] : {std::pair<int64_t, int64_t>{1, 64}, {5, 37}, {100, 512}}) {
    SCOPED_TRACE(std::to_string(n) + " x " + std::to_string(f));
    const OperationCase c = swiglu_case(n, f);
    check_operation(c, at::kFloat);
    check_operation(c, at::kBFloat16);
  }
}

TEST(Swiglu, LargeAndNonFiniteGates) {
  const float inf = std::numeric_limits<float>::infinity();
  const at::Tensor gate = at::tensor({-1e3f, -300.0f, -90.0f, 90.0f, 300.0f, inf, std::nanf("")});
  const at::Tensor up = at::ones({7});
  const at::Tensor y = swiglu(at::cat({gate, up}).view({1, 14}))[0];
  EXPECT_NEAR(y[0].item<float>(), 0, 1e-30);
  EXPECT_NEAR(y[1].item<float>(), 0, 1e-30);
  EXPECT_NEAR(y[2].item<float>(), 0, 1e-30);
  EXPECT_EQ(y[3].item<float>(), 90);
  EXPECT_EQ(y[4].item<float>(), 300);
  EXPECT_EQ(y[5].item<float>(), inf);
  EXPECT_TRUE(std::isnan(y[6].item<float>()));
}

TEST(SwigluCuda, ForwardAndGradients) {
  HALO_NEEDS_GPU();
  for (const auto& [n, f] : {std::pair<int64_t, int64_t>{1, 64}, {5, 37}, {300, 6144}}) {
    SCOPED_TRACE(std::to_string(n) + " x " + std::to_string(f));
    test::check_on_gpu(swiglu_case(n, f));
  }
}

TEST(SwigluCuda, LongSequence) {
  HALO_NEEDS_GPU();
  test::check_on_gpu(swiglu_case(test::kManyRows, 64));
}

TEST(Swiglu, RefusesAnOddNumberOfColumns) {
  EXPECT_THROW(swiglu(at::ones({2, 3})), Error);
}

}  // namespace
}  // namespace halo
