// Cross-entropy with one order of sums: a row's bits depend on no other row and no thread count.
#include <algorithm>
#include <cmath>

#include "ATen/ATen.h"
#include "ATen/Parallel.h"
#include "halo/kernels/linear/linear.h"
#include "halo/kernels/linear_cross_entropy/cross_entropy_rows.h"
#include "halo/kernels/linear_cross_entropy/linear_cross_entropy.h"

namespace halo {
namespace {

// One row in the order of its columns.
float reference_row_loss(const float* logits, int64_t columns, int64_t target) {
  const float most = *std::max_element(logits, logits + columns);
  double sum = 0;
  for (int64_t v = 0; v < columns; ++v) sum += std::exp(double{logits[v]} - most);
  return static_cast<float>(std::log(sum) + most - logits[target]);
}

}  // namespace

at::Tensor token_losses_reference(const at::Tensor& hidden, const at::Tensor& head,
                                  const at::Tensor& targets) {
  const int64_t rows = hidden.size(0), columns = head.size(0);
  const int64_t step = rows_per_chunk(columns, /*cpu=*/true);
  auto losses = at::zeros({rows}, at::kFloat);
  float* loss = losses.mutable_data_ptr<float>();
  const int64_t* target = targets.const_data_ptr<int64_t>();
  for (int64_t first = 0; first < rows; first += step) {
    const auto chunk = hidden.narrow(0, first, std::min(step, rows - first));
    const auto logits =
        linear(chunk, Weight{head, {}}, Weight{}, Kernels::kReference).to(at::kFloat).contiguous();
    const float* logit = logits.const_data_ptr<float>();
    at::parallel_for(0, chunk.size(0), 1, [&](int64_t begin, int64_t end) {
      for (int64_t n = begin; n < end; ++n) {
        if (target[first + n] == kIgnoreTarget) continue;
        loss[first + n] = reference_row_loss(logit + n * columns, columns, target[first + n]);
      }
    });
  }
  return losses;
}

}  // namespace halo
