#include "halo/kernels/embedding/embedding.h"

#include "halo/base/check.h"
#include "tests/gradient_check.h"

namespace halo {
namespace {

using test::check_operation;
using test::OperationCase;
using test::random_tensor;

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

void check_ids_on_gpu(const at::Tensor& ids, int64_t vocabulary, int64_t columns) {
  SCOPED_TRACE(::testing::Message() << ids.numel() << " ids, " << columns << " columns");
  OperationCase c;
  c.weights = {random_tensor({vocabulary, columns}, 1)};
  c.formula = [=](const auto&, const auto& w) { return std::vector{w[0].index_select(0, ids)}; };
  c.operation = [=](const auto&, const auto& w) {
    return std::vector{embedding(ids.to(w[0].value.device()), w[0])};
  };
  test::check_on_gpu(c);
}

// Ids that fill several chunks of the sorted places, that end at their borders, and that occur
// once.
TEST(EmbeddingCuda, ForwardAndGradients) {
  HALO_NEEDS_GPU();
  const at::Tensor few = at::arange(500, at::kLong).square().remainder(11);
  const at::Tensor one = at::zeros({32 * 5 + 1}, at::kLong);
  const at::Tensor borders = at::arange(320, at::kLong).div(32, "floor").remainder(11);
  const at::Tensor frequent = at::arange(3000, at::kLong).remainder(100).sub(90).clamp_min(0);
  for (const at::Tensor& ids : {at::tensor({3}, at::kLong), few, one, borders, frequent}) {
    for (const int64_t columns : {150, 2048}) check_ids_on_gpu(ids, 11, columns);
  }
}

TEST(EmbeddingCuda, LongSequence) {
  HALO_NEEDS_GPU();
  // Few ids often, many rarely, as text has them.
  const at::Tensor place = at::arange(test::kManyRows, at::kLong);
  check_ids_on_gpu(place.square().remainder(997).square().remainder(997), 997, 64);
}

TEST(Embedding, SumsInTokenOrder) {
  const at::Tensor dy = at::tensor({1e8f, 1.0f, -1e8f, 1.0f}).view({4, 1});
  const Weight table = test::trained_weight(at::zeros({2, 1}), at::kFloat);
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
