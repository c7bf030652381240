#include "halo/model/recompute.h"

#include <gtest/gtest.h>

#include <string>

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

// Once, behind all that follows and before all that led there, though only one of two is used.
TEST(OnTheWayBack, CallsBetweenWhatFollowsAndWhatLedThere) {
  std::vector<std::string> said;
  const auto say = [&said](const char* what) { return [&said, what] { said.emplace_back(what); }; };
  const at::Tensor a = at::full({3}, 2.0, at::kDouble).requires_grad_(true);
  const auto first = on_the_way_back({a * a, a + 1}, say("first"));
  const auto second = on_the_way_back({first[0] * 3, first[1]}, say("second"));
  EXPECT_TRUE(said.empty());
  second[0].sum().backward();
  EXPECT_EQ(said, (std::vector<std::string>{"second", "first"}));
  EXPECT_TRUE(at::equal(a.grad(), 6 * a.detach()));
}

}  // namespace
}  // namespace halo
