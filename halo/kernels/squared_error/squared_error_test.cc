#include "halo/kernels/squared_error/squared_error.h"

#include <limits>

#include "halo/base/check.h"
#include "tests/gpu.h"
#include "tests/op_check.h"

namespace halo {
namespace {

using test::random_tensor;

struct Case {
  at::Tensor y, target, scale;
};

Case make_case(at::IntArrayRef shape, at::ScalarType dtype) {
  return {random_tensor(shape, 1, dtype), random_tensor(shape, 2, dtype),
          at::full({1}, 0.3, at::kFloat)};
}

void expect_matches_formula(const Case& c, const SquaredError& got) {
  const at::Tensor difference = c.y.to(at::kDouble) - c.target.to(at::kDouble);
  const at::Tensor plain = c.y - c.target;
  test::expect_close("gradient", got.gradient.cpu(), difference * c.scale.to(at::kDouble),
                     plain * c.scale.item<double>());
  EXPECT_EQ(got.gradient.scalar_type(), c.y.scalar_type());
  test::expect_close("sum", got.sum.cpu(), difference.square().sum(),
                     plain.to(at::kFloat).square().sum());
}

void check_shapes(at::Device device) {
  const test::PoisonUninitialized poison;
  for (const at::ScalarType dtype : {at::kFloat, at::kBFloat16}) {
    for (const auto& [n, d] : {std::pair<int64_t, int64_t>{1, 1}, {1, 64}, {5, 37}, {700, 192}}) {
      SCOPED_TRACE(std::to_string(n) + " x " + std::to_string(d) + at::toString(dtype));
      const Case c = make_case({n, d}, dtype);
      expect_matches_formula(
          c, squared_error(c.y.to(device), c.target.to(device), c.scale.to(device)));
    }
  }
}

TEST(SquaredError, MatchesTheFormula) {
  check_shapes(at::kCPU);
}

TEST(SquaredError, ShowsNaN) {
  Case c = make_case({3, 8}, at::kFloat);
  c.y[1][2] = std::numeric_limits<float>::quiet_NaN();
  const SquaredError got = squared_error(c.y, c.target, c.scale);
  EXPECT_TRUE(std::isnan(got.sum.item<float>()));
  EXPECT_EQ(got.gradient.isnan().sum().item<int64_t>(), 1);
}

TEST(SquaredError, RefusesWhatDoesNotMatch) {
  const Case c = make_case({3, 8}, at::kFloat);
  EXPECT_THROW(squared_error(c.y, c.target.slice(0, 0, 2), c.scale), Error);
  EXPECT_THROW(squared_error(c.y, c.target, at::scalar_tensor(0.3)), Error);
}

TEST(SquaredErrorCuda, MatchesTheFormula) {
  HALO_NEEDS_GPU();
  const test::CudaKernelsSetting all("all");
  check_shapes(at::kCUDA);
}

TEST(SquaredErrorCuda, LongSequence) {
  HALO_NEEDS_GPU();
  const test::CudaKernelsSetting all("all");
  const Case c = make_case({test::kManyRows, 72}, at::kBFloat16);
  expect_matches_formula(c, squared_error(c.y.cuda(), c.target.cuda(), c.scale.cuda()));
}

}  // namespace
}  // namespace halo
