#include "halo/kernels/cpu/row_chunks.h"

#include "ATen/ATen.h"
#include "ATen/Parallel.h"

namespace halo {
namespace {

constexpr int64_t kChunkRows = 32;

}  // namespace

at::Tensor sum_over_rows(
    int64_t rows, int64_t width,
    const std::function<void(int64_t begin, int64_t end, float* sums)>& add_rows) {
  const int64_t chunks = (rows + kChunkRows - 1) / kChunkRows;
  const at::Tensor partial = at::zeros({chunks, width}, at::kFloat);
  float* sums = partial.mutable_data_ptr<float>();
  at::parallel_for(0, chunks, /*grain_size=*/1, [&](int64_t first, int64_t last) {
    for (int64_t chunk = first; chunk < last; ++chunk) {
      const int64_t begin = chunk * kChunkRows;
      add_rows(begin, std::min(begin + kChunkRows, rows), sums + chunk * width);
    }
  });
  at::Tensor total = at::zeros({width}, at::kDouble);
  double* to = total.mutable_data_ptr<double>();
  for (int64_t chunk = 0; chunk < chunks; ++chunk)
    for (int64_t c = 0; c < width; ++c) to[c] += sums[chunk * width + c];
  return total.to(at::kFloat);
}

}  // namespace halo
