// Cross-entropy of a row in three passes while it lies in the cache: maximum; exp and its sum;
// scale. See README.md.
#include <algorithm>
#include <cmath>

#include "ATen/ATen.h"
#include "ATen/Parallel.h"
#include "halo/kernels/linear_cross_entropy/cross_entropy_rows.h"
#include "halo/kernels/linear_cross_entropy/linear_cross_entropy.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "halo/kernels/linear_cross_entropy/linear_cross_entropy_cpu.cc"
#include "hwy/foreach_target.h"
// After foreach_target.h: these are read once a target.
#include "halo/kernels/logit_loss/logit_rows-inl.h"

HWY_BEFORE_NAMESPACE();
namespace halo {
namespace HWY_NAMESPACE {

// Sum of exp(x - most); where `keep`, x becomes exp(x - most).
double exp_sum(float* x, int64_t columns, float most, bool keep) {
  double sum = 0;
  for_blocks(columns, [&](auto d, int64_t begin, int64_t end) HWY_ATTR {
    const auto shift = hn::Set(d, most);
    auto partial = hn::Zero(d);
    const int64_t lanes = hn::Lanes(d);
    for (int64_t i = begin; i < end; i += lanes) {
      const auto e = hn::Exp(d, hn::Sub(hn::LoadU(d, x + i), shift));
      partial = hn::Add(partial, e);
      if (keep) hn::StoreU(e, d, x + i);
    }
    sum += hn::GetLane(hn::SumOfLanes(d, partial));
  });
  return sum;
}

void scale_row(float* x, int64_t columns, float factor) {
  for_blocks(columns, [&](auto d, int64_t begin, int64_t end) HWY_ATTR {
    const auto factors = hn::Set(d, factor);
    const int64_t lanes = hn::Lanes(d);
    for (int64_t i = begin; i < end; i += lanes) {
      hn::StoreU(hn::Mul(hn::LoadU(d, x + i), factors), d, x + i);
    }
  });
}

float cross_entropy_row(float* x, int64_t columns, int64_t target, float weight, bool gradient) {
  const float most = row_max(x, columns);
  const float at_target = x[target] - most;
  const double sum = exp_sum(x, columns, most, gradient);
  if (gradient) {
    scale_row(x, columns, static_cast<float>(weight / sum));
    x[target] -= weight;
  }
  return static_cast<float>(weight * (std::log(sum) - at_target));
}

}  // namespace HWY_NAMESPACE
}  // namespace halo
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace halo {

HWY_EXPORT(cross_entropy_row);

void cross_entropy_rows_cpu(const LossChunk& chunk, const at::Tensor& targets,
                            const at::Tensor& weights) {
  const int64_t rows = chunk.logits.size(0), columns = chunk.logits.size(1);
  float* logits = chunk.logits.mutable_data_ptr<float>();
  float* losses = chunk.losses.mutable_data_ptr<float>();
  const int64_t* target = targets.const_data_ptr<int64_t>();
  const float* weight = weights.defined() ? weights.const_data_ptr<float>() : nullptr;
  at::parallel_for(
      0, rows, 1 + at::internal::GRAIN_SIZE / (columns + 1), [&](int64_t b, int64_t e) {
        const auto row_loss = HWY_DYNAMIC_DISPATCH(cross_entropy_row);
        for (int64_t n = b; n < e; ++n) {
          float* row = logits + n * columns;
          if (target[n] != kIgnoreTarget) {
            losses[n] =
                row_loss(row, columns, target[n], weight ? weight[n] : 1.0f, chunk.gradient);
          } else {
            losses[n] = 0;
            if (chunk.gradient) std::fill_n(row, columns, 0.0f);
          }
        }
      });
}

}  // namespace halo
#endif  // HWY_ONCE
