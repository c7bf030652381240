#include "halo/kernels/linear_kl/linear_kl.h"

#include "halo/base/check.h"
#include "halo/kernels/linear_cross_entropy/linear_cross_entropy.h"
#include "halo/kernels/linear_kl/kl_rows.h"
#include "halo/kernels/logit_loss/chunked_loss.h"
#include "tests/gpu.h"
#include "tests/op_check.h"

namespace halo {
namespace {

using test::expect_close;
using test::leaf;
using test::random_tensor;

struct Problem {
  at::Tensor hidden, head;                  // the student's, leaves in the tested type
  at::Tensor teacher_hidden, teacher_head;  // [N, D'], [V, D']
  at::Tensor weights;                       // may be undefined
  CrossEntropyMix mix;
  double incoming = 1;  // gradient that arrives at the loss
};

struct Outcome {
  at::Tensor kl;  // [N]
  at::Tensor loss, d_hidden, d_head;
};

// 0, 0.75, 1.5, 2.25, 3 and again.
at::Tensor some_weights(int64_t rows) {
  return at::arange(rows, at::kFloat).remainder(5) * 0.75;
}

Problem make_problem(int64_t rows, int64_t vocabulary, bool weighted,
                     at::ScalarType dtype = at::kFloat) {
  Problem p;
  p.hidden = leaf(random_tensor({rows, 19}, 1), dtype);
  p.head = leaf(random_tensor({vocabulary, 19}, 2), dtype);
  p.teacher_hidden = random_tensor({rows, 27}, 3, dtype);
  p.teacher_head = random_tensor({vocabulary, 27}, 4, dtype);
  if (weighted) p.weights = some_weights(rows);
  return p;
}

// 3, 4, ... modulo the vocabulary, every seventh token without.
CrossEntropyMix some_mix(int64_t rows, int64_t vocabulary, double share) {
  at::Tensor targets = (at::arange(rows, at::kLong) + 3).remainder(vocabulary);
  for (int64_t n = 0; n < rows; n += 7) targets[n] = kIgnoreTarget;
  return {targets, share};
}

Outcome dense(const Problem& p, at::ScalarType dtype) {
  const auto hidden = leaf(p.hidden, dtype), head = leaf(p.head, dtype);
  const auto student = at::log_softmax(at::mm(hidden, head.t()), 1);
  const auto teacher =
      at::log_softmax(at::mm(p.teacher_hidden.to(dtype), p.teacher_head.to(dtype).t()), 1);
  auto kl = (teacher.exp() * (teacher - student)).sum(1);
  const auto all = kl.detach();
  if (p.mix.share != 0) {
    const auto share = p.mix.targets.ne(kIgnoreTarget).to(dtype) * p.mix.share;
    const auto at_target = student.gather(1, p.mix.targets.clamp_min(0).unsqueeze(1)).squeeze(1);
    kl = (1 - share) * kl - share * at_target;
  }
  if (p.weights.defined()) kl = kl * p.weights.to(dtype);
  const auto loss = kl.sum();
  (loss * p.incoming).backward();
  return {all, loss.detach(), hidden.grad(), head.grad()};
}

Outcome ours(const Problem& p, at::Device device = at::kCPU) {
  Weight head{leaf(p.head.to(device), p.head.scalar_type()),
              at::zeros(p.head.sizes(), at::TensorOptions(at::kFloat).device(device))};
  const auto hidden = leaf(p.hidden.to(device), p.hidden.scalar_type());
  const auto teacher_hidden = p.teacher_hidden.to(device), teacher_head = p.teacher_head.to(device);
  const auto weights = p.weights.defined() ? p.weights.to(device) : at::Tensor();
  CrossEntropyMix mix = p.mix;
  if (mix.share != 0) mix.targets = mix.targets.to(device);
  const auto loss = linear_kl(hidden, head, teacher_hidden, teacher_head, weights, mix);
  (loss * p.incoming).backward();
  EXPECT_FALSE(head.value.grad().defined());
  return {token_kl(hidden, head.value, teacher_hidden, teacher_head).cpu(), loss.detach().cpu(),
          hidden.grad().cpu(), head.grad.cpu()};
}

void expect_problem(const Problem& p, at::Device device = at::kCPU) {
  const Outcome got = ours(p, device), want = dense(p, at::kDouble);
  const Outcome plain = dense(p, p.hidden.scalar_type());
  expect_close("d_hidden", got.d_hidden, want.d_hidden, plain.d_hidden);
  expect_close("d_head", got.d_head, want.d_head, plain.d_head);
  expect_close("token_kl", got.kl, want.kl, plain.kl);
  // One number has no RMS to speak of: its rows' errors in the worst case.
  const double rows_error = (plain.kl.to(at::kDouble) - want.kl).abs().sum().item<double>();
  EXPECT_NEAR(got.loss.item<double>(), want.loss.item<double>(),
              2 * rows_error + 0x1p-24 * want.loss.abs().item<double>());
}

TEST(LinearKl, MatchesDenseAcrossChunkBorders) {
  test::PoisonUninitialized poison;
  const int64_t chunk = rows_per_chunk(33, /*cpu=*/true);
  for (int64_t rows : {int64_t{1}, int64_t{7}, chunk - 1, chunk, chunk + 1, 2 * chunk + 3}) {
    SCOPED_TRACE(rows);
    expect_problem(make_problem(rows, 33, /*weighted=*/true));
  }
}

TEST(LinearKl, MatchesDenseWithIncomingGradient) {
  for (int64_t vocabulary : {2, 131, 9001}) {
    SCOPED_TRACE(vocabulary);
    Problem p = make_problem(45, vocabulary, /*weighted=*/false);
    p.incoming = -2.75;
    expect_problem(p);
  }
}

TEST(LinearKl, MatchesDenseInBf16) {
  expect_problem(make_problem(70, 101, /*weighted=*/true, at::kBFloat16));
}

TEST(LinearKl, MatchesDenseWithCrossEntropyMixedIn) {
  for (const auto dtype : {at::kFloat, at::kBFloat16}) {
    for (double share : {0.25, 1.0}) {
      SCOPED_TRACE(::testing::Message() << c10::toString(dtype) << " " << share);
      Problem p = make_problem(70, 101, /*weighted=*/true, dtype);
      p.mix = some_mix(70, 101, share);
      p.incoming = -2.75;
      expect_problem(p);
    }
  }
  Problem p = make_problem(5, 11, /*weighted=*/false);
  p.mix = some_mix(5, 11, 1.5);
  EXPECT_THROW(ours(p), Error);
  p.mix = some_mix(5, 12, 0.5);
  p.mix.targets[4] = 11;
  EXPECT_THROW(ours(p), Error);
}

TEST(LinearKl, ExtremeLogitsStayFinite) {
  Problem p = make_problem(15, 37, /*weighted=*/false);
  p.hidden = leaf(p.hidden.detach() * 1000, at::kFloat);
  p.teacher_hidden = p.teacher_hidden * 3000;
  p.head = leaf(p.head.detach() * 10, at::kFloat);
  expect_problem(p);
}

TEST(LinearKl, OfEqualModelsIsZero) {
  Problem p = make_problem(40, 301, /*weighted=*/false);
  p.teacher_hidden = p.hidden.detach();
  p.teacher_head = p.head.detach();
  const Outcome got = ours(p);
  EXPECT_EQ(got.loss.item<float>(), 0);
  EXPECT_EQ(got.d_hidden.abs().max().item<float>(), 0);
  EXPECT_EQ(got.d_head.abs().max().item<float>(), 0);
}

TEST(LinearKl, MicroBatchesAddUp) {
  const Problem p = make_problem(60, 41, /*weighted=*/true);
  Weight head{p.head, at::zeros(p.head.sizes(), at::kFloat)};
  for (int64_t first : {0, 25}) {
    const int64_t rows = first == 0 ? 25 : 35;
    linear_kl(p.hidden.narrow(0, first, rows), head, p.teacher_hidden.narrow(0, first, rows),
              p.teacher_head, p.weights.narrow(0, first, rows))
        .backward();
  }
  const Outcome want = dense(p, at::kDouble), plain = dense(p, at::kFloat);
  expect_close("d_head", head.grad, want.d_head, plain.d_head);
  expect_close("d_hidden", p.hidden.grad(), want.d_hidden, plain.d_hidden);
}

TEST(LinearKl, HeadAloneAndHiddenAlone) {
  const Problem p = make_problem(20, 41, /*weighted=*/false);
  const Outcome want = dense(p, at::kDouble), plain = dense(p, at::kFloat);
  Weight trained{p.head, at::zeros(p.head.sizes(), at::kFloat)};
  linear_kl(p.hidden.detach(), trained, p.teacher_hidden, p.teacher_head, {}).backward();
  expect_close("d_head", trained.grad, want.d_head, plain.d_head);

  const Weight frozen{p.head.detach(), {}};
  linear_kl(p.hidden, frozen, p.teacher_hidden, p.teacher_head, {}).backward();
  expect_close("d_hidden", p.hidden.grad(), want.d_hidden, plain.d_hidden);

  EXPECT_FALSE(
      linear_kl(p.hidden.detach(), frozen, p.teacher_hidden, p.teacher_head, {}).requires_grad());
}

TEST(LinearKl, TeacherTakesNoGradient) {
  Problem p = make_problem(6, 11, /*weighted=*/false);
  p.teacher_hidden.requires_grad_(true);
  p.teacher_head.requires_grad_(true);
  ours(p);
  EXPECT_FALSE(p.teacher_hidden.grad().defined());
  EXPECT_FALSE(p.teacher_head.grad().defined());
}

TEST(LinearKl, DeviceFormMatchesToo) {
  const auto student = random_tensor({23, 57}, 5) * 3, teacher = random_tensor({23, 57}, 6) * 3;
  const auto weights = some_weights(23);
  LossChunk device{0, student.clone(), at::empty({23}), true};
  LossChunk cpu{0, student.clone(), at::empty({23}), true};
  LossChunk exact{0, student.to(at::kDouble), at::empty({23}, at::kDouble), true};
  auto device_teacher = teacher.clone(), cpu_teacher = teacher.clone();
  auto exact_teacher = teacher.to(at::kDouble);
  const CrossEntropyMix mix = some_mix(23, 57, 0.25);
  kl_rows_aten(device, device_teacher, weights, mix);
  kl_rows_aten(exact, exact_teacher, weights, mix);
  kl_rows_cpu(cpu, cpu_teacher, weights, mix);
  expect_close("losses", cpu.losses, exact.losses, device.losses);
  expect_close("gradient", cpu.logits, exact.logits, device.logits);
  expect_close("losses", device.losses, exact.losses, cpu.losses);
  expect_close("gradient", device.logits, exact.logits, cpu.logits);
}

TEST(LinearKlCuda, MatchesDense) {
  HALO_NEEDS_GPU();
  for (const char* kernels : {"all", "none"}) {
    const test::CudaKernelsSetting setting(kernels);
    for (const auto dtype : {at::kFloat, at::kBFloat16}) {
      for (const auto& [rows, vocabulary] :
           {std::pair<int64_t, int64_t>{1, 33}, {40, 131}, {150, 9001}, {70, 20'000}}) {
        // The loss of one row is one number: in bf16 its rounding is luck.
        if (rows == 1 && dtype == at::kBFloat16) continue;
        SCOPED_TRACE(::testing::Message() << kernels << " " << c10::toString(dtype) << " " << rows
                                          << " x " << vocabulary);
        const test::PoisonUninitialized poison;
        Problem p = make_problem(rows, vocabulary, /*weighted=*/rows != 40, dtype);
        p.incoming = -2.75;
        expect_problem(p, at::kCUDA);
        p.mix = some_mix(rows, vocabulary, 0.25);
        expect_problem(p, at::kCUDA);
      }
    }
  }
}

TEST(LinearKlCuda, LongSequence) {
  HALO_NEEDS_GPU();
  const test::CudaKernelsSetting all("all");
  for (const auto dtype : {at::kFloat, at::kBFloat16}) {
    expect_problem(make_problem(test::kManyRows, 33, /*weighted=*/true, dtype), at::kCUDA);
  }
}

TEST(LinearKlCuda, OfEqualModelsIsZero) {
  HALO_NEEDS_GPU();
  const test::CudaKernelsSetting all("all");
  for (const auto dtype : {at::kFloat, at::kBFloat16}) {
    Problem p = make_problem(40, 9001, /*weighted=*/false, dtype);
    p.teacher_hidden = p.hidden.detach();
    p.teacher_head = p.head.detach();
    const Outcome got = ours(p, at::kCUDA);
    EXPECT_EQ(got.loss.item<float>(), 0);
    EXPECT_EQ(got.d_hidden.abs().max().item<float>(), 0);
    EXPECT_EQ(got.d_head.abs().max().item<float>(), 0);
  }
}

TEST(LinearKl, RefusesAnotherVocabulary) {
  const Problem p = make_problem(5, 11, /*weighted=*/false);
  EXPECT_THROW(token_kl(p.hidden, p.head, p.teacher_hidden, random_tensor({12, 27}, 9)), Error);
}

}  // namespace
}  // namespace halo
