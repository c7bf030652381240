#include "halo/kernels/embedding/embedding.h"

#include "halo/base/check.h"
#include "tests/gradient_check.h"

namespace halo {
namespace {

using testing::check_operation;
using testing::OperationCase;
using testing::random_tensor;

TEST(Embedding, ForwardAndGradients) {
  const at::Tensor many = at::arange(500, at::kLong).square().remainder(11);
  for (const at::Tensor& ids : {at::tensor({3}, at::kLong), many}) {
    const OperationCase c{
        {},
        {random_tensor({11, 150}, 1)},
        [&](const auto&, const auto& w) { return std::vector{w[0].index_select(0, ids)}; },
        [&](const auto&, const auto& w) { return std::vector{embedding(ids, w[0])}; }};
    check_operation(c, at::kFloat);
    check_operation(c, at::kBFloat16);
  }
}

TEST(Embedding, SumsInTokenOrder) {
  const at::Tensor dy = at::tensor({1e8f, 1.0f, -1e8f, 1.0f}).view({4, 1});
  const Weight table = testing::trained_weight(at::zeros({2, 1}), at::kFloat);
  embedding(at::zeros({4}, at::kLong), table).backward(dy);
  EXPECT_EQ(table.grad[0][0].item<float>(), 1.0f);  // ((1e8 + 1) - 1e8) + 1 in fp32
  EXPECT_EQ(table.grad[1][0].item<float>(), 0.0f);
}

TEST(Embedding, RefusesUnknownIds) {
  const Weight table{at::ones({5, 3}), {}};
  EXPECT_THROW(embedding(at::tensor({0, 5}, at::kLong), table), Error);
  EXPECT_THROW(embedding(at::tensor({-1}, at::kLong), table), Error);
  EXPECT_THROW(embedding(at::tensor({1}, at::kInt), table), Error);
  EXPECT_EQ(embedding(at::empty({0}, at::kLong), table).size(0), 0);
}

}  // namespace
}  // namespace halo
