// KL of a row in three passes while both rows of logits lie in the cache: maxima; both exps with
// their sums and the KL's; difference of the probabilities. See README.md.
#include <cmath>

#include "ATen/ATen.h"
#include "ATen/Parallel.h"
#include "halo/kernels/linear_cross_entropy/linear_cross_entropy.h"
#include "halo/kernels/linear_kl/kl_rows.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "halo/kernels/linear_kl/linear_kl_cpu.cc"
#include "hwy/foreach_target.h"
// After foreach_target.h: these are read once a target.
#include "halo/kernels/logit_loss/logit_rows-inl.h"

HWY_BEFORE_NAMESPACE();
namespace halo {
namespace HWY_NAMESPACE {

struct KlSums {
  double student = 0, teacher = 0;  // of exp(logit - maximum)
  double weighted = 0;              // of exp(t - maximum) (t - s)
  double student_max = 0;
  double shift = 0;  // the teacher's maximum - the student's
};

// Where `keep`, both rows become exp(logit - maximum).
KlSums kl_sums(float* student, float* teacher, int64_t columns, bool keep) {
  const float student_max = row_max(student, columns), teacher_max = row_max(teacher, columns);
  KlSums sums;
  sums.student_max = student_max;
  sums.shift = double{teacher_max} - student_max;
  for_blocks(columns, [&](auto d, int64_t begin, int64_t end) HWY_ATTR {
    const auto shift_s = hn::Set(d, student_max), shift_t = hn::Set(d, teacher_max);
    auto sum_s = hn::Zero(d), sum_t = hn::Zero(d), weighted = hn::Zero(d);
    const int64_t lanes = hn::Lanes(d);
    for (int64_t i = begin; i < end; i += lanes) {
      const auto s = hn::LoadU(d, student + i), t = hn::LoadU(d, teacher + i);
      const auto exp_s = hn::Exp(d, hn::Sub(s, shift_s)), exp_t = hn::Exp(d, hn::Sub(t, shift_t));
      sum_s = hn::Add(sum_s, exp_s);
      sum_t = hn::Add(sum_t, exp_t);
      weighted = hn::MulAdd(exp_t, hn::Sub(t, s), weighted);
      if (keep) {
        hn::StoreU(exp_s, d, student + i);
        hn::StoreU(exp_t, d, teacher + i);
      }
    }
    sums.student += hn::GetLane(hn::SumOfLanes(d, sum_s));
    sums.teacher += hn::GetLane(hn::SumOfLanes(d, sum_t));
    sums.weighted += hn::GetLane(hn::SumOfLanes(d, weighted));
  });
  return sums;
}

// student = weight (student / sum_s - share teacher / sum_t), written so that equal rows and a
// share of 1 give exactly 0 whether or not the compiler fuses a product into the difference.
void subtract_probabilities(float* student, const float* teacher, int64_t columns,
                            const KlSums& sums, float weight, double share) {
  const float factor = static_cast<float>(weight / sums.student);
  const float ratio = static_cast<float>(sums.student / sums.teacher * share);
  for_blocks(columns, [&](auto d, int64_t begin, int64_t end) HWY_ATTR {
    const auto factors = hn::Set(d, factor), ratios = hn::Set(d, ratio);
    const int64_t lanes = hn::Lanes(d);
    for (int64_t i = begin; i < end; i += lanes) {
      const auto exp_s = hn::LoadU(d, student + i), exp_t = hn::LoadU(d, teacher + i);
      hn::StoreU(hn::Mul(hn::NegMulAdd(exp_t, ratios, exp_s), factors), d, student + i);
    }
  });
}

// `mixed`: the share of cross-entropy with `target`, 0 where the row has none.
float kl_row(float* student, float* teacher, int64_t columns, float weight, int64_t target,
             double mixed, bool gradient) {
  const double at_target = mixed != 0 ? student[target] : 0;
  const KlSums sums = kl_sums(student, teacher, columns, gradient);
  if (gradient) {
    subtract_probabilities(student, teacher, columns, sums, weight, 1 - mixed);
    if (mixed != 0) student[target] -= static_cast<float>(weight * mixed);
  }
  const double kl =
      sums.weighted / sums.teacher - sums.shift + (std::log(sums.student) - std::log(sums.teacher));
  const double cross_entropy = std::log(sums.student) + sums.student_max - at_target;
  return static_cast<float>(weight * (mixed != 0 ? kl + mixed * (cross_entropy - kl) : kl));
}

}  // namespace HWY_NAMESPACE
}  // namespace halo
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace halo {

HWY_EXPORT(kl_row);

void kl_rows_cpu(const LossChunk& chunk, at::Tensor& teacher, const at::Tensor& weights,
                 const CrossEntropyMix& mix) {
  const int64_t rows = chunk.logits.size(0), columns = chunk.logits.size(1);
  float* student_logits = chunk.logits.mutable_data_ptr<float>();
  float* teacher_logits = teacher.mutable_data_ptr<float>();
  float* losses = chunk.losses.mutable_data_ptr<float>();
  const float* weight = weights.defined() ? weights.const_data_ptr<float>() : nullptr;
  const int64_t* targets = mix.share != 0 ? mix.targets.const_data_ptr<int64_t>() : nullptr;
  at::parallel_for(
      0, rows, 1 + at::internal::GRAIN_SIZE / (columns + 1), [&](int64_t b, int64_t e) {
        const auto row_loss = HWY_DYNAMIC_DISPATCH(kl_row);
        for (int64_t n = b; n < e; ++n) {
          const int64_t target = targets ? targets[n] : kIgnoreTarget;
          losses[n] = row_loss(student_logits + n * columns, teacher_logits + n * columns, columns,
                               weight ? weight[n] : 1.0f, target,
                               target == kIgnoreTarget ? 0.0 : mix.share, chunk.gradient);
        }
      });
}

}  // namespace halo
#endif  // HWY_ONCE
