#include "halo/kernels/linear_cross_entropy/linear_cross_entropy.h"

#include <limits>

#include "ATen/Parallel.h"
#include "halo/base/check.h"
#include "halo/kernels/linear_cross_entropy/cross_entropy_rows.h"
#include "halo/kernels/logit_loss/chunked_loss.h"
#include "tests/gpu.h"
#include "tests/op_check.h"

namespace halo {
namespace {

using test::expect_close;
using test::expect_equal;
using test::leaf;
using test::random_tensor;

struct Problem {
  at::Tensor hidden, head;      // leaves in the tested type
  at::Tensor targets, weights;  // weights may be undefined
  double incoming = 1;          // gradient that arrives at the loss
};

struct Outcome {
  at::Tensor losses;  // [N]
  at::Tensor loss, d_hidden, d_head;
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

Outcome dense(const Problem& p, at::ScalarType dtype) {
  const auto hidden = leaf(p.hidden, dtype), head = leaf(p.head, dtype);
  const auto log_p = at::log_softmax(at::mm(hidden, head.t()), 1);
  auto losses = -log_p.gather(1, p.targets.clamp_min(0).unsqueeze(1)).squeeze(1);
  losses = losses * p.targets.ne(kIgnoreTarget).to(dtype);
  if (p.weights.defined()) losses = losses * p.weights.to(dtype);
  const auto loss = losses.sum();
  (loss * p.incoming).backward();
  return {losses.detach(), loss.detach(), hidden.grad(), head.grad()};
}

Outcome ours(const Problem& p, at::Device device = at::kCPU) {
  Weight head{leaf(p.head.to(device), p.head.scalar_type()),
              at::zeros(p.head.sizes(), at::TensorOptions(at::kFloat).device(device))};
  const auto hidden = leaf(p.hidden.to(device), p.hidden.scalar_type());
  const auto targets = p.targets.to(device);
  const auto weights = p.weights.defined() ? p.weights.to(device) : at::Tensor();
  const auto loss = linear_cross_entropy(hidden, head, targets, weights);
  (loss * p.incoming).backward();
  EXPECT_FALSE(head.value.grad().defined());
  return {token_losses(hidden, head.value, targets, Kernels::kFast).cpu(), loss.detach().cpu(),
          hidden.grad().cpu(), head.grad.cpu()};
}

void expect_problem(const Problem& p, at::Device device = at::kCPU) {
  const Outcome got = ours(p, device), want = dense(p, at::kDouble);
  const Outcome plain = dense(p, p.hidden.scalar_type());
  expect_close("d_hidden", got.d_hidden, want.d_hidden, plain.d_hidden);
  expect_close("d_head", got.d_head, want.d_head, plain.d_head);
  if (!p.weights.defined()) expect_close("token_losses", got.losses, want.losses, plain.losses);
  // One number has no RMS to speak of: its rows' errors in the worst case.
  const double rows_error = (plain.losses.to(at::kDouble) - want.losses).abs().sum().item<double>();
  EXPECT_NEAR(got.loss.item<double>(), want.loss.item<double>(),
              2 * rows_error + 0x1p-24 * want.loss.abs().item<double>());
}

TEST(LinearCrossEntropy, MatchesDenseAcrossChunkBorders) {
  test::PoisonUninitialized poison;
  const int64_t chunk = rows_per_chunk(33, /*cpu=*/true);
  for (int64_t rows : {int64_t{1}, int64_t{7}, chunk - 1, chunk, chunk + 1, 2 * chunk + 3}) {
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
  const Outcome got = ours(p);
  EXPECT_EQ(got.loss.item<float>(), 0);
  EXPECT_EQ(got.d_hidden.abs().max().item<float>(), 0);
  EXPECT_EQ(got.d_head.abs().max().item<float>(), 0);
}

TEST(LinearCrossEntropy, NoRowsGiveZero) {
  const Problem p = make_problem(0, 8, 11, /*weighted=*/false);
  const Outcome got = ours(p);
  EXPECT_EQ(got.loss.item<float>(), 0);
  EXPECT_EQ(got.d_head.abs().max().item<float>(), 0);
}

TEST(LinearCrossEntropy, MicroBatchesAddUp) {
  const Problem p = make_problem(60, 16, 41, /*weighted=*/true);
  Weight head{p.head, at::zeros(p.head.sizes(), at::kFloat)};
  at::Tensor total;
  for (int64_t first : {0, 25}) {
    const int64_t rows = first == 0 ? 25 : 35;
    const auto loss = linear_cross_entropy(p.hidden.narrow(0, first, rows), head,
                                           p.targets.narrow(0, first, rows).contiguous(),
                                           p.weights.narrow(0, first, rows));
    total = total.defined() ? total + loss : loss;
  }
  total.backward();
  const Outcome want = dense(p, at::kDouble), plain = dense(p, at::kFloat);
  expect_close("d_head", head.grad, want.d_head, plain.d_head);
  expect_close("d_hidden", p.hidden.grad(), want.d_hidden, plain.d_hidden);
}

TEST(LinearCrossEntropy, HeadAloneAndHiddenAlone) {
  const Problem p = make_problem(20, 16, 41, /*weighted=*/false);
  const Outcome want = dense(p, at::kDouble), plain = dense(p, at::kFloat);
  Weight trained{p.head, at::zeros(p.head.sizes(), at::kFloat)};
  linear_cross_entropy(p.hidden.detach(), trained, p.targets, {}).backward();
  expect_close("d_head", trained.grad, want.d_head, plain.d_head);

  const Weight frozen{p.head.detach(), {}};
  linear_cross_entropy(p.hidden, frozen, p.targets, {}).backward();
  expect_close("d_hidden", p.hidden.grad(), want.d_hidden, plain.d_hidden);

  EXPECT_FALSE(linear_cross_entropy(p.hidden.detach(), frozen, p.targets, {}).requires_grad());
  at::NoGradGuard no_grad;
  EXPECT_FALSE(linear_cross_entropy(p.hidden, trained, p.targets, {}).requires_grad());
}

TEST(LinearCrossEntropy, DeviceFormMatchesToo) {
  const auto logits = random_tensor({23, 57}, 5) * 3;
  const auto targets = make_problem(23, 1, 57, false).targets;
  const auto weights = random_tensor({23}, 6).abs();
  LossChunk device{0, logits.clone(), at::empty({23}), true};
  LossChunk cpu{0, logits.clone(), at::empty({23}), true};
  LossChunk exact{0, logits.to(at::kDouble), at::empty({23}, at::kDouble), true};
  cross_entropy_rows_aten(device, targets, weights);
  cross_entropy_rows_aten(exact, targets, weights);
  cross_entropy_rows_cpu(cpu, targets, weights);
  expect_close("losses", cpu.losses, exact.losses, device.losses);
  expect_close("gradient", cpu.logits, exact.logits, device.logits);
  expect_close("losses", device.losses, exact.losses, cpu.losses);
  expect_close("gradient", device.logits, exact.logits, cpu.logits);
}

TEST(LinearCrossEntropyCuda, MatchesDense) {
  HALO_NEEDS_GPU();
  for (const char* kernels : {"all", "none"}) {
    const test::CudaKernelsSetting setting(kernels);
    for (const auto dtype : {at::kFloat, at::kBFloat16}) {
      // Wide and single accesses, fewer columns than threads and more.
      for (const auto& [rows, vocabulary] :
           {std::pair<int64_t, int64_t>{1, 33}, {40, 131}, {150, 9001}, {70, 20'000}}) {
        // The loss of one row is one number: in bf16 its rounding is luck.
        if (rows == 1 && dtype == at::kBFloat16) continue;
        SCOPED_TRACE(::testing::Message() << kernels << " " << c10::toString(dtype) << " " << rows
                                          << " x " << vocabulary);
        const test::PoisonUninitialized poison;
        Problem p = make_problem(rows, 64, vocabulary, /*weighted=*/rows != 40, dtype);
        p.incoming = -2.75;
        expect_problem(p, at::kCUDA);
      }
    }
  }
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
  LossChunk exact{0, logits.to(at::kDouble), at::empty({23}, at::kDouble), true};
  LossChunk plain{0, logits.clone(), at::empty({23}), true};
  cross_entropy_rows_aten(exact, targets, {});
  cross_entropy_rows_aten(plain, targets, {});
  LossChunk got{0, logits.cuda(), at::empty({23}, at::kCUDA), true};
  cross_entropy_rows_cuda(got, targets.cuda(), {});
  expect_close("losses", got.losses.cpu(), exact.losses, plain.losses);
  expect_close("gradient", got.logits.cpu(), exact.logits, plain.logits);
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
  expect_close("losses", all, dense(p, at::kDouble).losses, dense(p, at::kFloat).losses);
}

TEST(LinearCrossEntropy, RefusesTargetsOutsideTheVocabulary) {
  Problem p = make_problem(5, 4, 11, /*weighted=*/false);
  p.targets[2] = 11;
  EXPECT_THROW(linear_cross_entropy(p.hidden, Weight{p.head, {}}, p.targets, {}), Error);
}

}  // namespace
}  // namespace halo
