#include "halo/kernels/linear_cross_entropy/linear_cross_entropy.h"

#include <limits>

#include "ATen/Parallel.h"
#include "halo/base/check.h"
#include "halo/kernels/linear_cross_entropy/cross_entropy_rows.h"
#include "halo/kernels/logit_loss/logit_loss_testing.h"

namespace halo {
namespace {

using namespace test;

struct Problem {
  at::Tensor hidden, head;      // leaves in the tested type
  at::Tensor targets, weights;  // weights may be undefined
  double incoming = 1;          // gradient that arrives at the loss
};

// Every seventh target is ignored.
Problem make_problem(int64_t rows, int64_t width, int64_t vocabulary, bool weighted,
                     at::ScalarType dtype = at::kFloat) {
  Problem p;
  p.hidden = leaf(random_tensor({rows, width}, 1), dtype);
  p.head = leaf(random_tensor({vocabulary, width}, 2), dtype);
  p.targets = (at::arange(rows, at::kLong) * 7919).remainder(vocabulary);
  p.targets.masked_fill_(at::arange(rows, at::kLong).remainder(7).eq(3), kIgnoreTarget);
  if (weighted) p.weights = random_tensor({rows}, 3).abs();
  return p;
}

LossOutcome dense(const Problem& p, at::ScalarType dtype) {
  const auto hidden = leaf(p.hidden, dtype), head = leaf(p.head, dtype);
  const auto log_p = at::log_softmax(at::mm(hidden, head.t()), 1);
  auto losses = -log_p.gather(1, p.targets.clamp_min(0).unsqueeze(1)).squeeze(1);
  losses = losses * p.targets.ne(kIgnoreTarget).to(dtype);
  if (p.weights.defined()) losses = losses * p.weights.to(dtype);
  const auto loss = losses.sum();
  (loss * p.incoming).backward();
  return {losses.detach(), loss.detach(), hidden.grad(), head.grad()};
}

LossOutcome ours(const Problem& p, at::Device device = at::kCPU) {
  const auto targets = p.targets.to(device);
  const auto weights = p.weights.defined() ? p.weights.to(device) : at::Tensor();
  return outcome_of(
      p.hidden, p.head, p.incoming, device,
      [&](const at::Tensor& hidden, const Weight& head) {
        return linear_cross_entropy(hidden, head, targets, weights);
      },
      [&](const at::Tensor& hidden, const at::Tensor& head) {
        return token_losses(hidden, head, targets, Kernels::kFast);
      });
}

void expect_problem(const Problem& p, at::Device device = at::kCPU) {
  const LossOutcome got = ours(p, device), want = dense(p, at::kDouble);
  const LossOutcome plain = dense(p, p.hidden.scalar_type());
  expect_outcome(got, want, plain);
  if (!p.weights.defined()) expect_close("token_losses", got.rows, want.rows, plain.rows);
}

TEST(LinearCrossEntropy, MatchesDenseAcrossChunkBorders) {
  const PoisonUninitialized poison;
  for (const int64_t rows : rows_around_chunks(33)) {
    SCOPED_TRACE(rows);
    expect_problem(make_problem(rows, 19, 33, /*weighted=*/false));
  }
}

TEST(LinearCrossEntropy, MatchesDenseWithWeightsAndIncomingGradient) {
  for (int64_t vocabulary : {2, 131, 9001}) {
    SCOPED_TRACE(vocabulary);
    Problem p = make_problem(45, 24, vocabulary, /*weighted=*/true);
    p.incoming = 0.37;
    expect_problem(p);
  }
}

TEST(LinearCrossEntropy, MatchesDenseInBf16) {
  expect_problem(make_problem(70, 24, 101, /*weighted=*/true, at::kBFloat16));
}

TEST(LinearCrossEntropy, ExtremeLogitsStayFinite) {
  Problem p = make_problem(15, 8, 37, /*weighted=*/false);
  p.hidden = leaf(p.hidden.detach() * 1000, at::kFloat);
  p.head = leaf(p.head.detach() * 10, at::kFloat);
  EXPECT_GT(at::mm(p.hidden.detach(), p.head.detach().t()).abs().max().item<float>(), 1e4);
  expect_problem(p);
}

TEST(LinearCrossEntropy, AllIgnoredGivesZero) {
  Problem p = make_problem(9, 8, 11, /*weighted=*/false);
  p.targets.fill_(kIgnoreTarget);
  expect_zero(ours(p));
}

TEST(LinearCrossEntropy, NoRowsGiveZero) {
  expect_zero(ours(make_problem(0, 8, 11, /*weighted=*/false)));
}

TEST(LinearCrossEntropy, MicroBatchesAddUp) {
  const Problem p = make_problem(60, 16, 41, /*weighted=*/true);
  expect_parts_add_up(
      p.hidden, p.head,
      [&](int64_t first, int64_t rows, const Weight& head) {
        return linear_cross_entropy(p.hidden.narrow(0, first, rows), head,
                                    p.targets.narrow(0, first, rows).contiguous(),
                                    p.weights.narrow(0, first, rows));
      },
      dense(p, at::kDouble), dense(p, at::kFloat));
}

TEST(LinearCrossEntropy, HeadAloneAndHiddenAlone) {
  const Problem p = make_problem(20, 16, 41, /*weighted=*/false);
  expect_gradients_where_wanted(
      p.hidden, p.head,
      [&](const at::Tensor& hidden, const Weight& head) {
        return linear_cross_entropy(hidden, head, p.targets, {});
      },
      dense(p, at::kDouble), dense(p, at::kFloat));
}

TEST(LinearCrossEntropy, DeviceFormMatchesToo) {
  ChunkForms forms(random_tensor({23, 57}, 5) * 3);
  const auto targets = make_problem(23, 1, 57, false).targets;
  const auto weights = random_tensor({23}, 6).abs();
  cross_entropy_rows_aten(forms.aten, targets, weights);
  cross_entropy_rows_aten(forms.exact, targets, weights);
  cross_entropy_rows_cpu(forms.cpu, targets, weights);
  forms.expect_agreement();
}

TEST(LinearCrossEntropyCuda, MatchesDense) {
  HALO_NEEDS_GPU();
  for_each_gpu_case([](at::ScalarType dtype, int64_t rows, int64_t vocabulary) {
    Problem p = make_problem(rows, 64, vocabulary, /*weighted=*/rows != 40, dtype);
    p.incoming = -2.75;
    expect_problem(p, at::kCUDA);
  });
}

TEST(LinearCrossEntropyCuda, LongSequence) {
  HALO_NEEDS_GPU();
  const test::CudaKernelsSetting all("all");
  for (const auto dtype : {at::kFloat, at::kBFloat16}) {
    expect_problem(make_problem(test::kManyRows, 24, 33, /*weighted=*/true, dtype), at::kCUDA);
  }
}

TEST(LinearCrossEntropyCuda, RowKernelAcrossLargeLogits) {
  HALO_NEEDS_GPU();
  const test::CudaKernelsSetting all("all");
  const auto logits = random_tensor({23, 5000}, 5) * 1e4;
  const auto targets = make_problem(23, 1, 5000, false).targets;
  ChunkForms forms(logits);
  cross_entropy_rows_aten(forms.exact, targets, {});
  cross_entropy_rows_aten(forms.aten, targets, {});
  LossChunk got{0, logits.cuda(), at::empty({23}, at::kCUDA), true};
  cross_entropy_rows_cuda(got, targets.cuda(), {});
  expect_chunk(got, forms.exact, forms.aten);
  targets[1] = 5000;
  cross_entropy_rows_cuda(got, targets.cuda(), {});
  EXPECT_TRUE(std::isnan(got.losses[1].item<float>()));
  EXPECT_FALSE(std::isnan(got.losses[2].item<float>()));
}

TEST(TokenLosses, ReferenceRowsDoNotDependOnTheOthers) {
  const Problem p = make_problem(31, 24, 101, /*weighted=*/false);
  const auto hidden = p.hidden.detach(), head = p.head.detach();
  const int threads = at::get_num_threads();
  const auto all = token_losses(hidden, head, p.targets, Kernels::kReference);
  at::set_num_threads(threads == 1 ? 2 : 1);
  expect_equal("threads", token_losses(hidden, head, p.targets, Kernels::kReference), all);
  at::set_num_threads(threads);
  for (int64_t n : {0, 3, 30}) {
    expect_equal(
        "row",
        token_losses(hidden.narrow(0, n, 1), head, p.targets.narrow(0, n, 1), Kernels::kReference),
        all.narrow(0, n, 1));
  }
  expect_close("losses", all, dense(p, at::kDouble).rows, dense(p, at::kFloat).rows);
}

TEST(LinearCrossEntropy, RefusesTargetsOutsideTheVocabulary) {
  Problem p = make_problem(5, 4, 11, /*weighted=*/false);
  p.targets[2] = 11;
  EXPECT_THROW(linear_cross_entropy(p.hidden, Weight{p.head, {}}, p.targets, {}), Error);
}

}  // namespace
}  // namespace halo
