#include "halo/model/parameters.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "ATen/ATen.h"
#include "tests/testing.h"

namespace halo {
namespace {

using test::error_of;
using testing::HasSubstr;
using Use = ParameterStore::Use;

std::vector<ParameterSpec> specs() {
  return {{"a", {2, 3}}, {"q", {4, 3}}, {"k", {2, 3}, true}, {"norm", {5}}};
}

TEST(ParameterStore, StacksAreOneMatrixAndOthersAreAligned) {
  const ParameterStore store(specs(), Use::kTrained, at::kFloat, at::kCPU);
  EXPECT_EQ(num_parameters(specs()), 6 + 12 + 6 + 5);
  EXPECT_EQ(store.offset("a"), 0);
  EXPECT_EQ(store.offset("q"), 64);
  EXPECT_EQ(store.offset("k"), 64 + 12);
  EXPECT_EQ(store.offset("norm"), 128);
  store.value("q").fill_(1);
  store.value("k").fill_(2);
  const Weight stack = store.stack("q", "k");
  EXPECT_EQ(stack.value.sizes(), (std::vector<int64_t>{6, 3}));
  EXPECT_EQ(stack.value.sum().item<float>(), 12 + 2 * 6);
  EXPECT_TRUE(stack.trained());
  EXPECT_TRUE(stack.value.requires_grad());
  EXPECT_THAT(error_of([&] { store.stack("a", "k"); }), HasSubstr("do not stand in one stack"));
  EXPECT_THAT(error_of([&] { store.value("b"); }), HasSubstr("no parameter 'b'"));
  EXPECT_THAT(error_of([&] {
                ParameterStore({{"a", {1}}, {"a", {2}}}, Use::kFrozen, at::kFloat, at::kCPU);
              }),
              HasSubstr("'a' is declared twice"));
}

TEST(ParameterStore, FrozenHoldsValuesAlone) {
  ParameterStore store(specs(), Use::kFrozen, at::kBFloat16, at::kCPU);
  EXPECT_FALSE(store.grad().defined());
  EXPECT_FALSE(store.moment1().defined());
  EXPECT_FALSE(store.weight("a").trained());
  EXPECT_FALSE(store.weight("a").value.requires_grad());
  EXPECT_EQ(store.compute().scalar_type(), at::kBFloat16);
}

TEST(ParameterStore, TheComputeCopyFollowsTheMaster) {
  ParameterStore store(specs(), Use::kTrained, at::kBFloat16, at::kCPU);
  EXPECT_EQ(store.master().scalar_type(), at::kFloat);
  store.value("a").fill_(1.0f + 0x1p-12f);  // more than bf16 holds
  EXPECT_EQ(store.weight("a").value.sum().item<float>(), 0);
  store.refresh_compute();
  EXPECT_EQ(store.weight("a").value.sum().item<float>(), 6);
  EXPECT_EQ(store.value("a")[0][0].item<float>(), 1.0f + 0x1p-12f);
}

// Every spec exactly once; names, shapes and types checked.
TEST(ParameterStore, LoadsStrictly) {
  ParameterStore store({{"a", {2}}, {"b", {1, 2}}}, Use::kTrained, at::kFloat, at::kCPU);
  const at::Tensor a = at::tensor({1.0f, 2.0f}), b = at::tensor({3.0f, 4.0f}).view({1, 2}),
                   integers = at::tensor({1, 2}, at::kLong);
  const auto half = b.to(at::kHalf);
  store.load({to_view("b", half), to_view("a", a)}, "f");
  EXPECT_TRUE(at::equal(store.value("a"), a));
  EXPECT_TRUE(at::equal(store.value("b"), b));
  const auto error = [&](const std::vector<TensorView>& tensors) {
    return error_of([&] { store.load(tensors, "f"); });
  };
  EXPECT_EQ(error({to_view("a", a)}), "f: tensor 'b' [1, 2] is missing");
  EXPECT_EQ(error({to_view("a", a), to_view("b", a)}),
            "f: tensor 'b' has shape [2], config.json asks for [1, 2]");
  EXPECT_THAT(error({to_view("a", integers), to_view("b", b)}),
              HasSubstr("'a' has type I64, expected a floating type"));
  EXPECT_THAT(error({to_view("a", a), to_view("a", a), to_view("b", b)}),
              HasSubstr("'a' is there twice"));
  const std::vector<TensorView> more = {to_view("a", a), to_view("b", b), to_view("c", a)};
  EXPECT_THAT(error(more), HasSubstr("'c' belongs to nothing in this model"));
}

TEST(Tensors, ViewsAndBack) {
  const at::Tensor x = at::arange(6, at::kFloat).view({2, 3});
  EXPECT_TRUE(at::equal(to_tensor(to_view("x", x)), x));
  const at::Tensor i = at::arange(4, at::kLong);
  EXPECT_TRUE(at::equal(to_tensor(to_view("i", i)), i));
  EXPECT_THAT(error_of([&] { to_view("x", x.t()); }), HasSubstr("must be contiguous"));
}

}  // namespace
}  // namespace halo
