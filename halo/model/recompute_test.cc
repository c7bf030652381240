#include "halo/model/recompute.h"

#include <gtest/gtest.h>

#include "ATen/ATen.h"

namespace halo {
namespace {

TEST(Recompute, RunsOnceForwardAndOnceBackwardAndGivesTheGradients) {
  const auto values = [](double first) {
    return at::arange(first, first + 6, at::kDouble).requires_grad_(true);
  };
  int runs = 0;
  const Recomputed run = [&runs](const std::vector<at::Tensor>& x) {
    ++runs;
    return std::vector{(x[0] * x[1]).sin(), x[0] + x[1]};
  };
  const at::Tensor a = values(1), b = values(3), a2 = values(1), b2 = values(3);
  const auto out = recompute(run, {a, b});
  EXPECT_EQ(runs, 1);
  const auto want = run({a2, b2});
  runs = 1;
  EXPECT_TRUE(at::equal(out[0], want[0]) && at::equal(out[1], want[1]));
  (out[0].square().sum() + out[1].sum()).backward();
  (want[0].square().sum() + want[1].sum()).backward();
  EXPECT_EQ(runs, 2);
  EXPECT_TRUE(at::equal(a.grad(), a2.grad()) && at::equal(b.grad(), b2.grad()));
}

TEST(Recompute, AnOutputWithoutAGradientAndAnInputThatTakesNone) {
  const at::Tensor a = at::ones({3}, at::kDouble).requires_grad_(true),
                   b = at::full({3}, 2.0, at::kDouble);
  const auto out = recompute(
      [](const std::vector<at::Tensor>& x) {
        return std::vector{x[0] * x[1], x[0].square()};
      },
      {a, b});
  out[0].sum().backward();
  EXPECT_TRUE(at::equal(a.grad(), b));
  EXPECT_FALSE(b.grad().defined());
}

}  // namespace
}  // namespace halo
