#include "halo/kernels/linear_kl/linear_kl.h"

#include "halo/base/check.h"
#include "halo/kernels/linear_cross_entropy/linear_cross_entropy.h"
#include "halo/kernels/linear_kl/kl_rows.h"
#include "halo/kernels/logit_loss/logit_loss_testing.h"

namespace halo {
namespace {

using namespace test;

struct Problem {
  at::Tensor hidden, head;                  // the student's, leaves in the tested type
  at::Tensor teacher_hidden, teacher_head;  // [N, D'], [V, D']
  at::Tensor weights;                       // may be undefined
  CrossEntropyMix mix;
  double incoming = 1;   // gradient that arrives at the loss
  bool reverse = false;  // linear_reverse_kl; without a mix
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

LossOutcome dense(const Problem& p, at::ScalarType dtype) {
  const auto hidden = leaf(p.hidden, dtype), head = leaf(p.head, dtype);
  const auto student = at::log_softmax(at::mm(hidden, head.t()), 1);
  const auto teacher =
      at::log_softmax(at::mm(p.teacher_hidden.to(dtype), p.teacher_head.to(dtype).t()), 1);
  auto kl = p.reverse ? (student.exp() * (student - teacher)).sum(1)
                      : (teacher.exp() * (teacher - student)).sum(1);
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

LossOutcome ours(const Problem& p, at::Device device = at::kCPU) {
  const auto teacher_hidden = p.teacher_hidden.to(device), teacher_head = p.teacher_head.to(device);
  const auto weights = p.weights.defined() ? p.weights.to(device) : at::Tensor();
  CrossEntropyMix mix = p.mix;
  if (mix.share != 0) mix.targets = mix.targets.to(device);
  if (p.reverse) {
    // Of one row the loss is that row's.
    const auto rows = [&](const at::Tensor& hidden, const at::Tensor& head) {
      const at::NoGradGuard no_grad;
      std::vector<at::Tensor> out;
      for (int64_t n = 0; n < hidden.size(0); ++n) {
        out.push_back(linear_reverse_kl(hidden.narrow(0, n, 1), {head, {}},
                                        teacher_hidden.narrow(0, n, 1), teacher_head, {}));
      }
      return at::stack(out);
    };
    return outcome_of(
        p.hidden, p.head, p.incoming, device,
        [&](const at::Tensor& hidden, const Weight& head) {
          return linear_reverse_kl(hidden, head, teacher_hidden, teacher_head, weights);
        },
        rows);
  }
  return outcome_of(
      p.hidden, p.head, p.incoming, device,
      [&](const at::Tensor& hidden, const Weight& head) {
        return linear_kl(hidden, head, teacher_hidden, teacher_head, weights, mix);
      },
      [&](const at::Tensor& hidden, const at::Tensor& head) {
        return token_kl(hidden, head, teacher_hidden, teacher_head);
      });
}

void expect_problem(const Problem& p, at::Device device = at::kCPU) {
  const LossOutcome got = ours(p, device), want = dense(p, at::kDouble);
  const LossOutcome plain = dense(p, p.hidden.scalar_type());
  expect_outcome(got, want, plain);
  expect_close("token_kl", got.rows, want.rows, plain.rows);
}

TEST(LinearKl, MatchesDenseAcrossChunkBorders) {
  const PoisonUninitialized poison;
  for (const int64_t rows : rows_around_chunks(33)) {
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

TEST(LinearKl, TheOtherWayRoundMatchesDense) {
  const PoisonUninitialized poison;
  for (const int64_t rows : {int64_t{1}, 7 + rows_per_chunk(33, /*cpu=*/true)}) {
    SCOPED_TRACE(rows);
    Problem p = make_problem(rows, 33, /*weighted=*/true);
    p.reverse = true;
    p.incoming = -2.75;
    expect_problem(p);
  }
  for (const auto dtype : {at::kFloat, at::kBFloat16}) {
    Problem p = make_problem(45, 9001, /*weighted=*/false, dtype);
    p.reverse = true;
    expect_problem(p);
  }
}

TEST(LinearKl, ExtremeLogitsStayFinite) {
  Problem p = make_problem(15, 37, /*weighted=*/false);
  p.hidden = leaf(p.hidden.detach() * 1000, at::kFloat);
  p.teacher_hidden = p.teacher_hidden * 3000;
  p.head = leaf(p.head.detach() * 10, at::kFloat);
  for (const bool reverse : {false, true}) {
    SCOPED_TRACE(reverse);
    p.reverse = reverse;
    expect_problem(p);
  }
}

TEST(LinearKl, OfEqualModelsIsZero) {
  Problem p = make_problem(40, 301, /*weighted=*/false);
  p.teacher_hidden = p.hidden.detach();
  p.teacher_head = p.head.detach();
  for (const bool reverse : {false, true}) {
    p.reverse = reverse;
    expect_zero(ours(p));
  }
}

TEST(LinearKl, MicroBatchesAddUp) {
  const Problem p = make_problem(60, 41, /*weighted=*/true);
  expect_parts_add_up(
      p.hidden, p.head,
      [&](int64_t first, int64_t rows, const Weight& head) {
        return linear_kl(p.hidden.narrow(0, first, rows), head,
                         p.teacher_hidden.narrow(0, first, rows), p.teacher_head,
                         p.weights.narrow(0, first, rows));
      },
      dense(p, at::kDouble), dense(p, at::kFloat));
}

TEST(LinearKl, HeadAloneAndHiddenAlone) {
  const Problem p = make_problem(20, 41, /*weighted=*/false);
  expect_gradients_where_wanted(
      p.hidden, p.head,
      [&](const at::Tensor& hidden, const Weight& head) {
        return linear_kl(hidden, head, p.teacher_hidden, p.teacher_head, {});
      },
      dense(p, at::kDouble), dense(p, at::kFloat));
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
  ChunkForms forms(random_tensor({23, 57}, 5) * 3);
  const auto teacher = random_tensor({23, 57}, 6) * 3, weights = some_weights(23);
  auto aten_teacher = teacher.clone(), cpu_teacher = teacher.clone();
  auto exact_teacher = teacher.to(at::kDouble);
  const CrossEntropyMix mix = some_mix(23, 57, 0.25);
  kl_rows_aten(forms.aten, aten_teacher, weights, mix);
  kl_rows_aten(forms.exact, exact_teacher, weights, mix);
  kl_rows_cpu(forms.cpu, cpu_teacher, weights, mix);
  forms.expect_agreement();
}

TEST(LinearKlCuda, MatchesDense) {
  HALO_NEEDS_GPU();
  for_each_gpu_case([](at::ScalarType dtype, int64_t rows, int64_t vocabulary) {
    Problem p = make_problem(rows, vocabulary, /*weighted=*/rows != 40, dtype);
    p.incoming = -2.75;
    expect_problem(p, at::kCUDA);
    p.mix = some_mix(rows, vocabulary, 0.25);
    expect_problem(p, at::kCUDA);
    p.mix = {};
    p.reverse = true;
    expect_problem(p, at::kCUDA);
  });
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
    expect_zero(ours(p, at::kCUDA));
  }
}

TEST(LinearKl, RefusesAnotherVocabulary) {
  const Problem p = make_problem(5, 11, /*weighted=*/false);
  EXPECT_THROW(token_kl(p.hidden, p.head, p.teacher_hidden, random_tensor({12, 27}, 9)), Error);
}

}  // namespace
}  // namespace halo
